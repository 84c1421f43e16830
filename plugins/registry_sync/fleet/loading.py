"""Loads a fleet, compiled once for each content.

Airflow parses a DAG file again in every task, and YAML takes seconds for ten thousand mirrors. So what was read is kept
as JSON in a cache folder, named after the files' path and content, with the hashes of all files, the values of all
variables, and the release. What does not fit is read and compiled again; a cache that cannot be used or written costs
time and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import registry_sync
from registry_sync.domain.file_modes import OWNER_ONLY
from registry_sync.domain.mirrors import Mistake
from registry_sync.fleet.declared_fleet import (
    Fleet,
    FleetSources,
    file_hash,
    included_files,
    root_files,
    without_garbage_collection,
)

#: Changes with the form of what is compiled.
FORMAT = 1
#: Compiled contents that are kept of one fleet: processes of two releases, or of two states of a checkout.
_KEPT = 4
log = logging.getLogger(__name__)


def load_fleet(path: Path, cache: Path | None = None, environment: Mapping[str, str] | None = None) -> Fleet:
    """The fleet at ``path``, a file or a folder; compiled in the folder ``cache``, None for nowhere.

    Raises nothing for mistakes in files: they are in the fleet.
    """
    environment = os.environ if environment is None else environment
    folder, main, _ = root_files(path)
    hashes = {name: _hash_of(folder / name) for name in main}
    compiled = None if cache is None else cache / _name(path, hashes)
    if compiled is not None:
        found = _read(compiled, path, environment)
        if found is not None:
            return found
    from registry_sync.fleet.fleet_reading import read_fleet

    fleet = read_fleet(path, environment)
    if compiled is not None and {name: fleet.sources.files.get(name) for name in main} == hashes:
        _write(compiled, fleet)
    return fleet


def _name(path: Path, hashes: Mapping[str, str | None]) -> str:
    """The name of a compiled fleet: of its path, and of its content and what reads it."""
    place = file_hash(os.fsencode(path.absolute()))[:16]
    content = json.dumps([FORMAT, registry_sync.__version__, hashes], sort_keys=True)
    return f"{place}-{file_hash(content.encode())[:32]}.json"


def _hash_of(path: Path) -> str | None:
    try:
        return file_hash(path.read_bytes())
    except OSError:
        return None


def _read(compiled: Path, path: Path, environment: Mapping[str, str]) -> Fleet | None:
    """The compiled fleet, if it is of the present files and variables."""
    try:
        with without_garbage_collection():
            document = json.loads(compiled.read_bytes())
        sources = FleetSources(document["files"], tuple(document["included"]), document["variables"])
        if not _is_current(sources, path, environment):
            return None
        mistakes = tuple(Mistake(*entry) for entry in document["mistakes"])
        mirrors, groups = tuple(document["mirrors"]), tuple(document["groups"])
        return Fleet(path, mirrors, groups, mistakes, sources, document["is_unreadable"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        log.warning("the compiled fleet %s cannot be used and is made again: %s", compiled, problem)
        return None


def _is_current(sources: FleetSources, path: Path, environment: Mapping[str, str]) -> bool:
    folder, main, _ = root_files(path)
    if any(environment.get(name) != value for name, value in sources.variables.items()):
        return False
    included = included_files(folder, sources.included, main)
    if not {*main, *included} <= sources.files.keys():
        return False
    return all(_hash_of(folder / name) == known for name, known in sources.files.items())


def _write(compiled: Path, fleet: Fleet) -> None:
    """Writes a compiled fleet, whole or not at all; two at once write the same."""
    document: dict[str, Any] = {
        "files": fleet.sources.files,
        "included": fleet.sources.included,
        "variables": fleet.sources.variables,
        "mirrors": fleet.documents,
        "groups": fleet.group_documents,
        "mistakes": [list(asdict(mistake).values()) for mistake in fleet.mistakes],
        "is_unreadable": fleet.is_unreadable,
    }
    try:
        OWNER_ONLY.make_folder(compiled.parent)
        descriptor, temporary = tempfile.mkstemp(dir=compiled.parent, prefix=".compiling-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, separators=(",", ":"))
            Path(temporary).replace(compiled)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _remove_older(compiled)
    except OSError as problem:
        log.warning(
            "the compiled fleet cannot be kept in %s, and is read again each time: %s", compiled.parent, problem
        )


def _remove_older(compiled: Path) -> None:
    """Removes older contents of the same fleet, but the newest few."""
    place = compiled.name.partition("-")[0]
    found = []
    for other in compiled.parent.glob(f"{place}-*.json"):
        with contextlib.suppress(OSError):  # another process has removed it
            found.append((other.stat().st_mtime_ns, other))
    for _, other in sorted(found, reverse=True)[_KEPT:]:
        with contextlib.suppress(OSError):
            other.unlink(missing_ok=True)
