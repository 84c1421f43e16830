"""What an import gathers: mirrors, the connections that they need, and findings, written as ``mirrors.yaml``.

Entries of one source and repository fold into one mirror. Each mirror is read again as the fleet's reader does, before
it is written: one with a mistake is left out with a finding, so that the document has none. Credentials of the other
tool are named by where they stand, and never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagPattern
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.mirror_reading import Surroundings, read_mirror
from registry_sync.fleet.variables import Variables
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, Place, Scalar, parse_yaml

SCHEMA_LINE = "# yaml-language-server: $schema=./mirrors.schema.json"
_WIDTH = 120
_NO_ID = re.compile(r"[^A-Za-z0-9]+")
#: Rules that together select what each of them selects, so that sets of them alone become one set.
_JOINED = ("include", "regex", "digests")
#: What else may be done where a file selects repositories by a pattern.
BY_DISCOVERY = "or list them with `airflow registry-sync fleet discover`"
#: A set of rules that selects every tag.
EVERY_TAG: Mapping[str, Any] = {}


@dataclass(frozen=True)
class ImportFinding:
    """What to know about a line of the file. A warning is about something that is not, or otherwise, carried over."""

    place: Place
    message: str
    is_warning: bool

    def __str__(self) -> str:
        where = f"{self.place.file}:{self.place.line}" if self.place.line else self.place.file
        return f"{where}: {'warning' if self.is_warning else 'note'}: {self.message}"


@dataclass
class ImportedMirror:
    """A mirror as its file has it; ``source`` is ``host/path``, ``sets`` the rules for tags, of which any selects.

    ``fields`` are further keys of the mirror in ``mirrors.yaml``.
    """

    repository: str
    source: str
    place: Place
    sets: list[Mapping[str, Any]] = field(default_factory=lambda: [EVERY_TAG])
    fields: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The entry of ``mirrors``."""
        path = self.source.rpartition("://")[2].partition("/")[2]
        named = {} if self.repository == path else {"repository": self.repository}
        sets = joined_sets(self.sets)
        tags = {} if EVERY_TAG in sets else {"tags": sets[0] if len(sets) == 1 else sets}
        return {**named, "source": self.source, **tags, **self.fields}


@dataclass(frozen=True)
class ImportedFleet:
    """``text`` is the document ``mirrors.yaml``; findings are in the order of the lines."""

    text: str
    mirror_count: int
    findings: tuple[ImportFinding, ...]


class FleetImport:
    """The import of one file; messages that repeat are told once, with the number of further lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        #: That of all mirrors: most tools remove no tag.
        self.mode = SyncMode.ADDITIVE
        self._found: dict[tuple[str, bool], tuple[Place, int]] = {}
        self._mirrors: dict[str, ImportedMirror] = {}
        self._folded = 0
        self._connections: dict[str, str] = {}
        self._identities: dict[tuple[str, str], str] = {}
        self._unfilled: dict[str, Place] = {}
        self._variables: dict[str, Place] = {}
        self._repeated: set[tuple[str, Place]] = set()

    # -- findings -----------------------------------------------------------------------------------------------------

    def warn(self, place: Place, message: str) -> None:
        """Reports what is not carried over, or means something else here."""
        self._find(place, message, is_warning=True)

    def note(self, place: Place, message: str) -> None:
        """Reports what is good to know."""
        self._find(place, message, is_warning=False)

    def _find(self, place: Place, message: str, *, is_warning: bool) -> None:
        first, count = self._found.get((message, is_warning), (place, 0))
        self._found[(message, is_warning)] = (first, count + 1)

    def warn_unknown(self, fields: Fields, known: Iterable[str], where: str) -> None:
        """Reports keys that the other tool does not read."""
        expected = {*known}
        for key, place in fields.places.items():
            if key not in expected and not key.startswith("x-"):
                self.warn(place, f"{where} has no key {key[:60]!r}; it had no effect and has none here")
        self.warn_repeated(fields)

    def spelled(self, fields: Fields, known: Iterable[str], where: str) -> Fields:
        """``fields`` with the keys as ``known`` spells them: Go's readers of JSON take them in any case.

        Reports keys that are none of them.
        """
        names = {name.lower(): name for name in known}
        made = Fields(fields.place)
        made.repeated, made.first = fields.repeated, fields.first
        for key, value in fields.items():
            made.add(names.get(key.lower(), key), fields.places[key], value)
        self.warn_unknown(made, names.values(), where)
        return made

    def warn_repeated(self, fields: Fields) -> None:
        """Reports keys that stand twice, each line once."""
        for key, place in fields.repeated:
            if (key, place) not in self._repeated:
                self._repeated.add((key, place))
                self.warn(place, f"the key {key[:60]!r} stands there more than once; the last one is read")

    def note_unfilled(self, place: Place, host: str) -> None:
        """Remembers a host that the other tool pushes to."""
        if host:
            self._unfilled.setdefault(host, place)

    def note_variable(self, place: Place, name: str) -> None:
        """Remembers a variable of the environment that the document may refer to."""
        self._variables.setdefault(name, place)

    # -- values of the file -------------------------------------------------------------------------------------------

    def fields(self, value: Any, at: Place, expected: str) -> Fields:
        """A map; empty for null, and with a warning for anything else."""
        if not isinstance(value, Fields):
            if value is not None:
                self.warn(at, f"this is no map; expected {expected}; it is left out")
            return Fields(at)
        self.warn_repeated(value)
        return value

    def each_fields(self, value: Any, at: Place, expected: str) -> Iterator[Fields]:
        """The maps of a list; a single map counts as a list of one."""
        if isinstance(value, Fields):
            yield value
        elif isinstance(value, Entries):
            for entry, place in zip(value, value.places, strict=True):
                if isinstance(entry, Fields):
                    yield entry
                else:
                    self.warn(place, f"this is no map; expected {expected}; it is left out")
        elif value is not None:
            self.warn(at, f"this is no list of maps; expected {expected}; it is left out")

    def texts(self, value: Any, at: Place, expected: str) -> list[tuple[str, Place]]:
        """The texts of a list, or a text alone, with their lines; what is neither is left out with a warning."""
        if value is None:
            return []
        entries = zip(value, value.places, strict=True) if isinstance(value, Entries) else [(value, at)]
        found = []
        for entry, place in entries:
            if isinstance(entry, Scalar):
                found.append((str(entry), place))
            else:
                self.warn(place, f"this is no text; expected {expected}; it is left out")
        return found

    def flag(self, fields: Fields, key: str, default: bool) -> bool:
        """A flag as YAML's writers have it: true, yes and on in any case."""
        value = fields.get(key)
        if not isinstance(value, Scalar):
            return default
        return str(value).lower() in ("true", "yes", "on", "y", "1")

    # -- mirrors and connections --------------------------------------------------------------------------------------

    def add(self, mirror: ImportedMirror) -> None:
        """Adds a mirror, or folds it into the present one of its repository."""
        present = self._mirrors.setdefault(mirror.repository, mirror)
        if present is mirror:
            return
        line = present.place.line
        if present.source != mirror.source:
            self.warn(
                mirror.place,
                f"{mirror.repository} is filled from {present.source} (line {line}) and from {mirror.source}; a "
                "repository has one source: this one is left out, give it another name in a mirror of its own",
            )
            return
        keys = {*present.fields, *mirror.fields}
        differing = sorted(key for key in keys if present.fields.get(key) != mirror.fields.get(key))
        if differing:
            self.warn(
                mirror.place,
                f"{mirror.source} stands in line {line} already with another {', '.join(differing)}; what line {line} "
                "says is used for both",
            )
        present.sets.extend(mirror.sets)
        self._folded += 1

    def need_connection(self, host: str, place: Place, identity: str, says: str) -> str | None:
        """Notes that ``host`` needs a connection; ``says`` is what to enter there, without secrets.

        Returns the connection's id where another identity has the host already, so that the mirror has to name it.
        """
        host = host.rpartition("://")[2]
        conn_id = self._identities.get((host, identity))
        if conn_id is None:
            ids = {*self._identities.values()}
            stem = _NO_ID.sub("_", host).strip("_").lower() or "registry"
            conn_id = next(name for name in (stem, *(f"{stem}_{n}" for n in range(2, 1000))) if name not in ids)
            self._identities[(host, identity)] = conn_id
            self.note(place, f"{host} needs a connection {conn_id!r} of type registry with host {host}: {says}")
        return None if self._connections.setdefault(host, conn_id) == conn_id else conn_id

    # -- the document -------------------------------------------------------------------------------------------------

    def finish(self) -> ImportedFleet:
        """Writes the document, without the mirrors that could not be read again."""
        whole = Place(self.file, 0)
        mirrors = self._readable([*self._mirrors.values()])
        hosts = {_host(mirror.source) for mirror in mirrors}
        connections = {host: conn_id for host, conn_id in self._connections.items() if host in hosts}
        shared = _shared([mirror.fields for mirror in mirrors])
        document: dict[str, Any] = {"version": 1}
        if connections:
            document["connections"] = connections
        document["defaults"] = {"mode": self.mode.value, **shared}
        document["mirrors"] = [_without(mirror.document(), shared) for mirror in mirrors]
        text = _written(document)
        self._note_whole(whole, text)
        if not mirrors:
            self.warn(whole, "no mirror could be made of this file")
        return ImportedFleet(text, len(mirrors), tuple(self._findings()))

    def _note_whole(self, whole: Place, text: str) -> None:
        if self.mode is SyncMode.MIRROR:
            removed = (
                "mode is mirror: tags that are gone upstream are removed, as by this tool; for mirrors that keep them"
            )
            self.note(whole, f"{removed}, write mode: additive in defaults, or in a mirror")
        else:
            self.note(
                whole,
                "mode is additive: tags that are gone upstream stay, as with this tool; for mirrors that remove them, "
                "write mode: mirror in defaults, or in a mirror",
            )
        if self._folded:
            entries = "1 entry was" if self._folded == 1 else f"{self._folded:,} entries were"
            self.note(whole, f"{entries} folded into mirrors of the same source and repository")
        for name, place in self._variables.items():
            if f"${{{name}}}" in text:
                self.note(place, f"${{{name}}} is read from the environment of Airflow: set {name} there")
        for host, place in self._unfilled.items():
            self.note(
                place,
                f"nobody fills {host} any more: the content is stored here, and clients pull it from here with publish",
            )

    def _findings(self) -> list[ImportFinding]:
        made = []
        for (message, is_warning), (place, count) in self._found.items():
            more = f" (and {format_count(count - 1, 'more line')})" if count > 1 else ""
            made.append(ImportFinding(place, message + more, is_warning))
        return sorted(made, key=lambda finding: finding.place.line)

    def _readable(self, mirrors: list[ImportedMirror]) -> list[ImportedMirror]:
        """The mirrors that the fleet's reader takes as they are written."""
        document = {"mirrors": [mirror.document() for mirror in mirrors]}
        try:
            top = parse_yaml(_written(document).encode(), self.file)
        except Misread as misread:
            raise Misread(Place(self.file, 0), f"the imported file cannot be written: {misread.message}") from None
        environment = dict.fromkeys(self._variables, "variable.example")
        around = Surroundings(Variables(environment), Fields(top.place), {}, {}, lambda _name, _at: "")
        kept = []
        for entry, mirror in zip(top["mirrors"], mirrors, strict=True):
            found = read_mirror(entry, around)
            if found.mirror is not None:
                kept.append(mirror)
            for _, message in found.mistakes:
                self.warn(mirror.place, f"{mirror.source} is left out: {message}")
        return kept


def joined_sets(sets: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The sets of rules, each once; names, expressions and digests of sets with nothing else become one set."""
    joined: dict[str, dict[str, Any]] = {}
    others: list[Mapping[str, Any]] = []
    for one in sets:
        if one and all(key in _JOINED for key in one):
            for key, values in one.items():
                joined.setdefault(key, {}).update({str(value): value for value in values})
        elif one not in others:
            others.append(one)
    return [*([{key: [*values.values()] for key, values in joined.items()}] if joined else []), *others]


def literal_tag(text: str) -> str | None:
    """``text`` if it is the name of a tag, and no glob."""
    try:
        return None if TagPattern(text).is_glob or "{" in text else text
    except RegistrySyncError:
        return None


def escaped(text: str) -> str:
    """``text`` in which nothing is a variable."""
    return text.replace("${", "$${")


def _host(source: str) -> str:
    return source.rpartition("://")[2].partition("/")[0]


def _shared(each: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields that all of several mirrors have with one value."""
    if len(each) < 2:
        return {}
    return {
        key: value
        for key, value in each[0].items()
        if key not in ("description", "enabled") and all(key in other and other[key] == value for other in each[1:])
    }


def _without(document: dict[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in shared}


def _written(document: Mapping[str, Any]) -> str:
    """YAML, tags that look like numbers in quotes."""
    import yaml

    class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the faster one where it is
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    plain = _plain(document)
    text = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True, default_flow_style=None)
    return f"{SCHEMA_LINE}\n{text}"


def _plain(value: Any) -> Any:
    """The value without subclasses of text, which the writer does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, str) else value
