"""Reads the files of a fleet, once for each content: what :mod:`registry_sync.fleet.loading` then keeps compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry_sync.domain.mirrors import Mistake
from registry_sync.domain.references import RegistryUrl
from registry_sync.fleet.declared_fleet import (
    Fleet,
    FleetSources,
    file_hash,
    included_files,
    root_files,
    without_garbage_collection,
)
from registry_sync.fleet.definition import DEFAULTS, FILE_KEYS, GROUP, VERSION
from registry_sync.fleet.inheritance import TAGS, merged, merged_rules
from registry_sync.fleet.kinds import FREE_KEY, Reading, report_repeated, unknown_key
from registry_sync.fleet.mirror_reading import Surroundings, read_group, read_mirror
from registry_sync.fleet.variables import Variables
from registry_sync.fleet.yaml_text import MAX_BYTES, Entries, Fields, Misread, Place, Scalar, parse_yaml

_KEYS = {key.name: key for key in FILE_KEYS}


def read_fleet(path: Path, environment: Mapping[str, str]) -> Fleet:
    """The fleet at ``path`` as its files say it; mistakes are in it."""
    with without_garbage_collection():
        return _FleetReader(path, environment).read()


class _FleetReader:
    """The reading of one fleet."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path = path
        self._folder, self._main, self._patterns = root_files(path)
        self._variables = Variables(environment)
        self._hashes: dict[str, str | None] = {}
        self._documents: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, dict[str, Any]] = {}
        self._mistakes: list[Mistake] = []

    def read(self) -> Fleet:
        is_unreadable = not self._main
        if is_unreadable:
            self._report(Place(self._path.name, 0), "the folder has no *.yaml file")
        for name in self._main:
            around = Surroundings(self._variables, _no_fields(name), {}, {}, self._text_of)
            try:
                top = self._parsed(name)
                around, patterns = self._read_top(top, around, is_main=True)
            except Misread as misread:
                is_unreadable = len(self._main) == 1
                self._report(misread.place, misread.message)
                continue
            self._patterns += patterns
            self._read_mirrors(top, around)
            for included in included_files(self._folder, self._patterns, self._main):
                self._read_included(included, around)
        return Fleet(
            self._path,
            tuple(self._documents.values()),
            tuple(self._groups.values()),
            tuple(self._mistakes),
            FleetSources(self._hashes, self._patterns, self._variables.used),
            is_unreadable,
        )

    def _read_included(self, name: str, around: Surroundings) -> None:
        try:
            top = self._parsed(name)
            inside, _ = self._read_top(top, around, is_main=False)
        except Misread as misread:
            self._report(misread.place, misread.message)
            return
        self._read_mirrors(top, inside)

    # -- files ------------------------------------------------------------------------------------------------------

    def _data(self, name: str) -> bytes:
        """The bytes of a file, whose hash is kept. Raises :class:`Misread`, also for a link to elsewhere."""
        path = self._folder / name
        self._hashes[name] = None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise Misread(Place(name, 0), f"the file has more than {MAX_BYTES:,} bytes")
            data = path.read_bytes()
        except OSError as problem:
            raise Misread(Place(name, 0), f"the file cannot be read: {problem.strerror}") from None
        self._hashes[name] = file_hash(data)
        if name not in self._main and not path.resolve().is_relative_to(self._folder.resolve()):
            raise Misread(Place(name, 0), "the file is a link that leads out of the folder of the fleet")
        return data

    def _parsed(self, name: str) -> Fields:
        top = parse_yaml(self._data(name), name)
        if not isinstance(top, Fields):
            raise Misread(Place(name, 1), "this is not a map; expected version and mirrors")
        return top

    def _text_of(self, name: str, at: Place) -> str:
        """The text of a file that a mirror names."""
        try:
            return self._data(name).decode()
        except UnicodeDecodeError:
            raise Misread(at, f"{name[:80]!r} is not text") from None
        except Misread as misread:
            raise Misread(at, f"{name[:80]!r}: {misread.message}") from None

    # -- a file's own keys ------------------------------------------------------------------------------------------

    def _read_top(self, top: Fields, around: Surroundings, *, is_main: bool) -> tuple[Surroundings, tuple[str, ...]]:
        """What the mirrors of a file have around them, and its patterns of included files."""
        reading = Reading(self._variables)
        report_repeated(top, reading)
        for name, place in top.places.items():
            if name not in _KEYS and not name.startswith(FREE_KEY):
                reading.report(Misread(place, unknown_key(name, tuple(_KEYS))))
        self._check_version(top, reading)
        patterns: list[str] = self._value(top, "include", reading) or []
        if patterns and not is_main:
            reading.report(Misread(top.places["include"], "an included file includes no others"))
        connections = self._value(top, "connections", reading) or {}
        defaults = self._fields(top, "defaults", reading)
        groups = self._fields(top, "groups", reading)
        known = dict(around.groups)
        for name, fields in groups.items():
            if isinstance(fields, Fields):
                known[name] = fields
                GROUP.read(fields, groups.places[name], reading)
            else:
                reading.report(GROUP.wrong(fields, groups.places[name]))
        DEFAULTS.read(defaults, defaults.place, reading)
        for place, message in reading.mistakes:
            self._report(place, message)
        hosts = {RegistryUrl.parse(host).netloc: conn_id for host, conn_id in connections.items()}
        below = around.defaults if not defaults else _over(around.defaults, defaults)
        connections = {**around.connections, **hosts}
        inside = Surroundings(self._variables, below, known, connections, self._text_of, set(around.broken_batches))
        for name in groups:
            self._read_group(name, known[name], inside, is_new=name not in around.groups)
        return inside, tuple(patterns) if is_main else ()

    def _read_group(self, name: str, fields: Fields, inside: Surroundings, *, is_new: bool) -> None:
        document = read_group(name, fields, inside)
        if document is None:
            return
        if name in self._groups or not is_new:
            inside.broken_batches.add(name)
            self._report(fields.place, f"another file has a group {name!r} as well, and one of them is a batch")
        else:
            self._groups[name] = document

    def _check_version(self, top: Fields, reading: Reading) -> None:
        version = top.get("version")
        if version is None:
            reading.report(Misread(top.place, f"version is missing; expected version: {VERSION}"))
        elif str(version) != VERSION:
            shown = str(version)[:20] if isinstance(version, Scalar) else "no number"
            raise Misread(top.places["version"], f"the version is {shown}; this release reads version {VERSION}")

    def _value(self, top: Fields, name: str, reading: Reading) -> Any:
        if top.get(name) is None:
            return None
        try:
            return _KEYS[name].kind.read(top[name], top.places[name], reading)
        except Misread as misread:
            reading.report(misread)
            return None

    def _fields(self, top: Fields, name: str, reading: Reading) -> Fields:
        found = top.get(name)
        if found is None:
            return _no_fields(top.place.file)
        if isinstance(found, Fields):
            return found
        reading.report(_KEYS[name].kind.wrong(found, top.places[name]))
        return _no_fields(top.place.file)

    # -- mirrors ----------------------------------------------------------------------------------------------------

    def _read_mirrors(self, top: Fields, around: Surroundings) -> None:
        entries = top.get("mirrors")
        if entries is None:
            return
        if not isinstance(entries, Entries):
            self._report(top.places["mirrors"], "mirrors is no list; expected a list of maps with source")
            return
        for entry, place in zip(entries, entries.places, strict=True):
            if isinstance(entry, Fields):
                self._add(entry, around)
            else:
                self._report(place, "this is no map; expected a mirror with source or remote")

    def _add(self, entry: Fields, around: Surroundings) -> None:
        found = read_mirror(entry, around)
        present = None if found.repository is None else self._documents.get(found.repository)
        if present is not None:
            self._report(
                entry.place,
                f"the repository {found.repository!r} is that of {present['place']} already; give another name as "
                "repository",
            )
            return
        for place, message in found.mistakes:
            self._mistakes.append(Mistake(place.file, place.line, message, found.repository))
        if found.mirror is not None:
            self._documents[found.mirror.repository] = found.mirror.document()

    def _report(self, place: Place, message: str) -> None:
        mistake = Mistake(place.file, place.line, message)
        if mistake not in self._mistakes:
            self._mistakes.append(mistake)


def _no_fields(file: str) -> Fields:
    return Fields(Place(file, 1))


def _over(below: Fields, above: Fields) -> Fields:
    """The defaults of an included file over those of the main one, with the rules for tags."""
    made = merged(below, above)
    for fields in (below, above):
        if TAGS in fields:
            made[TAGS] = merged_rules(made.get(TAGS), fields[TAGS])
            made.places[TAGS] = fields.places[TAGS]
    return made
