"""A fleet that the shared Airflow has as well: a good mirror, a group, and one with a mistake among them.

The registry is not known when the DAGs are parsed. The file is read again when a task runs, so a test names it then.
"""

from __future__ import annotations

from pathlib import Path

TEXT = """\
# yaml-language-server: $schema=./mirrors.schema.json
version: 1
defaults: {labels: {team: fleet}}
groups:
  pair: {batch: true, retries: 0}
mirrors:
  - {repository: fleet/one, source: SOURCE, guard: {max_removed_tags: 3}, publish: {private: false}}
  - {repository: fleet/wrong, source: SOURCE, shedule: "@daily"}
  - {repository: fleet/first, source: SOURCE, group: pair, tags: {include: [latest]}}
  - {repository: fleet/second, source: SOURCE, group: pair, mode: additive}
"""


def write(folder: Path, registry: str = "http://127.0.0.1:1") -> Path:
    """The file of the fleet below ``folder``; ``registry`` is where all mirrors are synced from."""
    folder.mkdir(exist_ok=True)
    path = folder / "mirrors.yaml"
    path.write_text(TEXT.replace("SOURCE", f"{registry}/library/hello-world"))
    return path
