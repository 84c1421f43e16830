"""A fleet that the shared Airflow has as well: a good mirror, groups, and one with a mistake among them.

The registry is not known when the DAGs are parsed. The file is read again when a task runs, so a test names it then.
"""

from __future__ import annotations

from pathlib import Path

TEXT = """\
# yaml-language-server: $schema=./mirrors.schema.json
version: 1
defaults: {labels: {team: fleet}}
groups:
  {pair: &batch {batch: true, retries: 0}, left: *batch, right: *batch, large: *batch}
mirrors:
  - {repository: fleet/one, source: SOURCE, guard: {max_removed_tags: 3}, publish: {private: false}}
  - {repository: fleet/wrong, source: SOURCE, shedule: "@daily"}
  - {repository: fleet/first, source: SOURCE, group: pair, tags: {include: [latest]}}
  - {repository: fleet/second, source: SOURCE, group: pair, mode: additive}
  - repository: fleet/promised
    source: SOURCE
    guard: {max_removed_tags: 0}
    freshness: 10m
    notify: [{on: [guard, stale], to: mail}, {on: [guard, stale], to: hook}]
  - {repository: fleet/large, source: LARGE, group: large, policy: on_demand, include_referrers: false}
"""
#: The mirrors of two groups that share the account of one registry.
LIMITED = tuple(f"{group}/app-{number:02}" for group in ("left", "right") for number in range(12))


def write(
    folder: Path, registry: str = "http://127.0.0.1:1", *, limited: str = "http://127.0.0.1:2", large: str = ""
) -> Path:
    """The file of the fleet below ``folder``; ``registry`` is where mirrors are synced from.

    ``limited`` is the registry of those of two groups, and ``large`` the source of the large one, with its repository.
    """
    folder.mkdir(exist_ok=True)
    path = folder / "mirrors.yaml"
    text = TEXT.replace("SOURCE", f"{registry}/library/hello-world")
    text = text.replace("LARGE", large or f"{registry}/team/large")
    groups = (f"  - {{source: {limited}/{name}, group: {name.partition('/')[0]}}}\n" for name in LIMITED)
    path.write_text(text + "".join(groups))
    return path
