"""The reference of ``mirrors.yaml`` and its JSON Schema, generated from the definition.

Both are kept in the repository, where people read them and editors load the schema; a test compares them with what is
generated. ``python -m documentation.mirrors_file`` writes them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry_sync.fleet import definition
from registry_sync.fleet.kinds import ByShape, Key, Kind, ListOf, MapOf, Record

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
SCHEMA = REFERENCE / definition.SCHEMA_FILE
PAGE = REFERENCE / "mirrors-file.md"
_INTRODUCTION = """\
# The file of mirrors

`mirrors.yaml` declares mirrors: what is synced, from where, and when. The setting [`fleet_path`](settings.md) names
the file, or a folder; in a folder `mirrors.yaml` is the main file and every other `*.yaml` is included. Without
`mirrors.yaml` each file of the folder stands for itself. What is made of it: [DAGs](../tutorial/fleet.md), one for a
mirror or one for a group.

A file may lie beside a DAG file of your own as well, as in a bundle whose path differs between machines:
`globals().update(mirror_dags(Path(__file__).parent / "mirrors.yaml", check_dag_id="team_fleet"))`, with `mirror_dags`
of `registry_sync.operators.mirror_dags`. Airflow parses only files with the words *dag* and *airflow*, if in a
comment. Names of repositories are unique in all fleets together.

This page is generated from the definition, as is the [JSON Schema](mirrors.schema.json). With this first line editors
complete keys and mark mistakes:

```yaml
# yaml-language-server: $schema=./mirrors.schema.json
```

```yaml
version: 1
connections:                            # credentials are kept in Airflow connections
  docker.io: dockerhub
defaults:
  schedule: "@daily"
  timezone: Europe/Berlin
  spread: 2h                            # each starts at a time of its own
groups:
  base:
    batch: true                         # one DAG for the group
    platforms: [linux/amd64, linux/arm64]
mirrors:
  - source: docker.io/library/alpine
    group: base
    tags: {include: ["3.*", latest]}
  - repository: team/app
    remote: {url: "https://${HARBOR_HOST:-harbor.example.org}", upstream_name: team/app}
    policy: on_demand
    schedule: 6h
```

## How it is read

- **Text is text.** An unquoted `1.10` is the tag `1.10`, `on` is a text; a flag is `true` or `false`. Anchors and
  merge keys (`<<`) work. A file has at most 16 MiB.
- **Unknown keys are mistakes**, and so are keys that stand twice. Keys that begin with `x-` are your own.
- **Defaults, then the group, then the mirror.** Maps are merged by key, lists replace, `exclude` and `labels` add up,
  `null` clears. The rules for tags of defaults and groups go into each set of rules of a mirror; what they exclude
  never takes a tag away that the mirror names exactly.
- **Included files** have the connections, groups and defaults of the main file, and may have further ones for
  themselves.
- **Variables** of the environment are replaced in values, not in regular expressions: `${NAME}`, `${NAME:-default}`,
  `${NAME:?what it is}`, and `$${` for `${`. They cannot add keys. Secrets do not belong here, but into connections.
- **`freshness` and `notify`** say who is notified of what, and of mirrors that are too old:
  [be notified](../how-to/be-notified.md).
- **A mistake hurts its mirror**, and no other. `airflow registry-sync fleet validate` prints all with file and line.
- **Schedules** are crons of five fields, presets, intervals such as `6h`, `{asset: URI}`, or `null` for syncs by
  hand. An interval that divides an hour or a day starts at full ones; others count from run to run. `spread` shifts a
  cron by an offset that the mirror's name decides, as far as no run leaves its day.
"""
_SECTIONS: tuple[tuple[str, str, tuple[Key, ...]], ...] = (
    ("The file", "Keys of a file.", definition.FILE_KEYS),
    ("A mirror", "Keys of an entry of `mirrors`, besides those of all.", definition.MIRROR.keys),
    ("A group", "Keys of an entry of `groups`, besides those of all.", definition.GROUP.keys),
    ("Mirrors, groups and defaults", "These keys are the same for all three.", definition.SHARED_KEYS),
)


def schema_text() -> str:
    """The JSON Schema as a file."""
    return json.dumps(definition.json_schema(), indent=2) + "\n"


def page_text() -> str:
    """The reference page."""
    lines = [_INTRODUCTION]
    shared = {key.name for key in definition.SHARED_KEYS}
    for title, text, keys in _SECTIONS:
        own = [key for key in keys if keys is definition.SHARED_KEYS or key.name not in shared]
        lines += [f"## {title}", "", text, "", *_table(own)]
    for name, record in _records():
        lines += [f"## `{name}`", "", f"Keys of {record.expected}.", "", *_table(record.keys)]
    return "\n".join(lines).rstrip() + "\n"


def _records() -> Iterator[tuple[str, Record]]:
    """The maps within values, each once, by the path of keys that leads to them."""
    seen: set[int] = set()
    for key in definition.SHARED_KEYS:
        yield from _within(key.name, key.kind, seen)


def _within(path: str, kind: Kind, seen: set[int]) -> Iterator[tuple[str, Record]]:
    if isinstance(kind, Record):
        if id(kind) not in seen:
            seen.add(id(kind))
            yield path, kind
            for key in kind.keys:
                yield from _within(f"{path}.{key.name}", key.kind, seen)
    elif isinstance(kind, ByShape):
        for shape in (kind.fields, kind.entries, kind.scalar):
            if shape is not None:
                yield from _within(path, shape, seen)
    elif isinstance(kind, ListOf | MapOf):
        yield from _within(path, kind.each, seen)


def _table(keys: Any) -> list[str]:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        example = "" if key.example is None else f" Such as `{_cell(json.dumps(key.example, ensure_ascii=False))}`."
        default = f"`{key.default}`" if key.default and " " not in key.default else key.default
        rows.append(f"| `{key.name}` | {_cell(key.kind.expected)} | {default} | {_cell(key.description)}{example} |")
    return [*rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Writes both files."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
