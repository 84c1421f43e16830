"""YAML as text with places: what a file says, before anything is made of it.

Every scalar stays the text that stands in the file, so that an unquoted ``1.10`` is the tag ``1.10``; whoever reads a
number or a flag says so (:mod:`registry_sync.fleet.kinds`). Only null, and the merge key ``<<``, mean something here.
Objects are built from the parser's events and not by PyYAML's constructors: there is no type that a file could ask
for, and files are bounded in size, depth, and in what aliases multiply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 32
#: Values of a file, with those that aliases repeat.
MAX_VALUES = 1_000_000
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_KNOWN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_MERGE = "<<"


class Place(NamedTuple):
    """A line of a file; ``line`` counts from 1, 0 means the whole file."""

    file: str
    line: int


class Misread(Exception):
    """What stands at ``place`` is not what is expected; caught where the mistakes of a file are collected."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message


class Scalar(str):
    """The text of a scalar; ``is_plain`` when it is not quoted."""

    __slots__ = ("is_plain", "place")
    place: Place
    is_plain: bool


class Entries(list[Any]):
    """A list of values and the places of each."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []


class Fields(dict[str, Any]):
    """Values by key, and the places of the keys. ``repeated`` are keys that stand there more than once."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, Place] = {}
        self.repeated: list[tuple[str, Place]] = []
        self.first: dict[str, Place] = {}

    def add(self, key: str, place: Place, value: Any) -> None:
        """Adds a key that stands in the file."""
        if key in self:
            self.repeated.append((key, place))
            self.first.setdefault(key, self.places[key])
        self[key] = value
        self.places[key] = place

    def merge(self, other: Any) -> None:
        """Adds the keys of another mapping that this one does not have."""
        for key, value in other.items():
            if key not in self:
                self[key] = value
                self.places[key] = other.places[key]


@dataclass
class _Open:
    """A collection that the parser is in; ``key`` is the pending key of a mapping."""

    value: Fields | Entries
    anchor: str | None
    key: Scalar | None = None
    merged: list[Any] = field(default_factory=list)
    count: int = 1


def parse_yaml(data: bytes, file: str) -> Any:
    """The one document of a file: :class:`Fields`, :class:`Entries`, :class:`Scalar` or None.

    Raises :class:`Misread`.
    """
    import yaml

    if len(data) > MAX_BYTES:
        raise Misread(Place(file, 0), f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise Misread(Place(file, line), "this is not UTF-8 text") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(file).build(yaml.parse(text, Loader=loader))
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None) or getattr(problem, "context_mark", None)
        said = getattr(problem, "problem", None) or getattr(problem, "reason", None) or "a character that YAML forbids"
        line = 0 if mark is None else mark.line + 1
        raise Misread(Place(file, line), f"this is not YAML: {said}") from None


class _Builder:
    """Builds the values of one file from events."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._result: Any = None
        self._count = 0
        self._has_document = False

    def build(self, events: Iterator[Any]) -> Any:
        for event in events:
            name = type(event).__name__
            if name == "ScalarEvent":
                self._put(self._scalar(event), self._place(event), event.anchor)
            elif name == "MappingStartEvent":
                self._open(Fields(self._place(event)), event)
            elif name == "SequenceStartEvent":
                self._open(Entries(self._place(event)), event)
            elif name in ("MappingEndEvent", "SequenceEndEvent"):
                self._close()
            elif name == "AliasEvent":
                self._alias(event)
            elif name == "DocumentStartEvent":
                if self._has_document:
                    raise Misread(self._place(event), "a second document starts here; a file has one")
                self._has_document = True
        return self._result

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1)

    def _scalar(self, event: Any) -> Scalar | None:
        self._refuse_tag(event)
        is_plain = event.style is None or event.style == ""
        is_key = bool(self._stack) and isinstance(self._stack[-1].value, Fields) and self._stack[-1].key is None
        if is_plain and event.value in _NULLS and event.tag is None and not is_key:
            return None
        scalar = Scalar(event.value)
        scalar.place, scalar.is_plain = self._place(event), is_plain
        return scalar

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!" and event.tag not in _KNOWN_TAGS:
            raise Misread(self._place(event), f"the type {event.tag[:80]!r} is not read; leave it out")

    def _open(self, value: Fields | Entries, event: Any) -> None:
        self._refuse_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            raise Misread(value.place, f"this is nested deeper than {MAX_DEPTH} levels")
        if self._stack and isinstance(self._stack[-1].value, Fields) and self._stack[-1].key is None:
            raise Misread(value.place, "a key is a list or a map; keys are text")
        self._stack.append(_Open(value, event.anchor))

    def _close(self) -> None:
        closed = self._stack.pop()
        if isinstance(closed.value, Fields):
            for other in closed.merged:
                closed.value.merge(other)
        self._put(closed.value, closed.value.place, closed.anchor, closed.count)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise Misread(self._place(event), f"no anchor &{event.anchor[:80]} stands before this alias")
        value, count = self._anchors[event.anchor]
        self._put(value, self._place(event), None, count)

    def _put(self, value: Any, place: Place, anchor: str | None, count: int = 1) -> None:
        """Adds a value to the collection that is open, or makes it the document."""
        if anchor is not None:
            self._anchors[anchor] = (value, count)
        if not self._stack:
            self._result = value
            return
        within = self._stack[-1]
        within.count += count
        if within.count > MAX_VALUES:
            raise Misread(place, f"with what its aliases repeat the file has more than {MAX_VALUES:,} values")
        if isinstance(within.value, Entries):
            within.value.append(value)
            within.value.places.append(place)
        elif within.key is None:
            if not isinstance(value, Scalar):
                raise Misread(place, "a key is a list or a map; keys are text")
            within.key = value
        else:
            _put_field(within, within.key, place, value)
            within.key = None


def _put_field(within: _Open, key: Scalar, place: Place, value: Any) -> None:
    if key != _MERGE or not key.is_plain:
        within.value.add(str(key), key.place, value)  # type: ignore[union-attr]  # only a mapping has a pending key
        return
    merged = value if isinstance(value, Entries) else [value]
    if not all(isinstance(other, Fields) for other in merged):
        raise Misread(place, "<< merges a map or a list of maps, such as <<: *name")
    within.merged.extend(merged)
