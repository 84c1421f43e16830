"""Kinds of values in a file: how each is read, and how JSON Schema says it.

The definition of a file (:mod:`registry_sync.fleet.definition`) is made of these, so that what is read, what the schema
says and what the reference page says cannot differ. A value of a wrong kind raises :class:`Misread` with its place and
what was expected. Null is not read: it clears what is inherited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.variables import Variables
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, Place, Scalar

Schema = dict[str, Any]
#: Keys that are read by nobody: for anchors, and for notes to other programs.
FREE_KEY = "x-"
TRUE, FALSE = ("true", "True"), ("false", "False")
_SHOWN = 60
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNIT_SECONDS = (604_800, 86_400, 3_600, 60, 1)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKMGTP]?i?B?)")
_PREFIXES = ("", "K", "M", "G", "T", "P")


@dataclass
class Reading:
    """The reading of one mirror or file: the variables of the environment, and the mistakes found."""

    variables: Variables
    mistakes: list[tuple[Place, str]] = field(default_factory=list)

    def report(self, misread: Misread) -> None:
        """Records a mistake; what stands elsewhere is read on."""
        self.mistakes.append((misread.place, misread.message))


@dataclass(frozen=True)
class Kind:
    """A kind of value. ``expected`` completes *expected …* in messages."""

    expected: str

    def schema(self) -> Schema:
        """What JSON Schema says of it, without null."""
        raise NotImplementedError

    def read(self, value: Any, at: Place, reading: Reading) -> Any:
        """The value as JSON. Raises :class:`Misread`."""
        raise NotImplementedError

    def wrong(self, value: Any, at: Place, why: str = "") -> Misread:
        """The mistake of a value that is not of this kind."""
        return Misread(at, f"{_shown(value)}{f' ({why})' if why else ''}; expected {self.expected}")


def _shown(value: Any) -> str:
    if isinstance(value, Fields):
        return "this is a map"
    if isinstance(value, Entries):
        return "this is a list"
    return "this is empty" if value is None else f"this is {str(value)[:_SHOWN]!r}"


@dataclass(frozen=True)
class Text(Kind):
    """A text; ``check`` raises a :class:`RegistrySyncError` for one that cannot be used.

    ``has_variables``: ``${NAME}`` in it is replaced, which regular expressions cannot have.
    """

    check: Callable[[str], object] | None = None
    examples: tuple[str, ...] = ()
    max_length: int = 1000
    has_variables: bool = True

    def schema(self) -> Schema:
        """Numbers and flags are allowed, since they are read as the text that they are."""
        shown: Schema = {"type": ["string", "number", "boolean"], "maxLength": self.max_length}
        return shown | ({"examples": list(self.examples)} if self.examples else {})

    def read(self, value: Any, at: Place, reading: Reading) -> str:
        if not isinstance(value, Scalar):
            raise self.wrong(value, at)
        text = reading.variables.replace(str(value), at) if self.has_variables else str(value)
        if not text or len(text) > self.max_length:
            raise self.wrong(text, at, f"at most {self.max_length} characters" if text else "")
        if self.check is not None:
            try:
                self.check(text)
            except RegistrySyncError as problem:
                raise Misread(at, f"{problem}; expected {self.expected}") from None
        return text


@dataclass(frozen=True)
class Choice(Kind):
    """One of ``values``."""

    values: tuple[str, ...] = ()

    def schema(self) -> Schema:
        return {"enum": list(self.values)}

    def read(self, value: Any, at: Place, reading: Reading) -> str:
        text = reading.variables.replace(str(value), at) if isinstance(value, Scalar) else None
        if text not in self.values:
            raise self.wrong(value, at, near_name(text or "", self.values))
        return text


@dataclass(frozen=True)
class Flag(Kind):
    """``true`` or ``false``."""

    expected: str = "true or false"

    def schema(self) -> Schema:
        return {"type": "boolean"}

    def read(self, value: Any, at: Place, reading: Reading) -> bool:
        text = reading.variables.replace(str(value), at) if isinstance(value, Scalar) else ""
        if text not in TRUE + FALSE:
            raise self.wrong(value, at)
        return text in TRUE


@dataclass(frozen=True)
class Number(Kind):
    """A number from ``least`` to ``most``; whole unless ``is_share``."""

    least: int = 0
    most: int = 1_000_000
    is_share: bool = False

    def schema(self) -> Schema:
        return {"type": "number" if self.is_share else "integer", "minimum": self.least, "maximum": self.most}

    def read(self, value: Any, at: Place, reading: Reading) -> int | float:
        text = reading.variables.replace(str(value), at) if isinstance(value, Scalar) else ""
        form = r"\d{1,6}(?:\.\d{1,9})?|\.\d{1,9}" if self.is_share else r"-?\d{1,16}"
        if not re.fullmatch(form, text):
            raise self.wrong(value, at)
        number = float(text) if self.is_share else int(text)
        if not self.least <= number <= self.most:
            raise self.wrong(value, at)
        return number


@dataclass(frozen=True)
class Size(Kind):
    """Bytes: ``200GB`` is decimal, ``200GiB`` binary; a number alone is bytes."""

    expected: str = "a size such as 200GB, 1.5TiB or a number of bytes"
    most: int = 2**53 - 1

    def schema(self) -> Schema:
        return {
            "type": ["string", "integer"],
            "minimum": 1,
            "pattern": r"^(\d+(\.\d+)? ?[kKMGTP]?i?B?|\$\{.*\})$",
            "examples": ["200GB", "500GiB"],
        }

    def read(self, value: Any, at: Place, reading: Reading) -> int:
        text = reading.variables.replace(str(value), at) if isinstance(value, Scalar) else ""
        found = _SIZE.fullmatch(text)
        if found is None or found[2] in ("i", "iB"):
            raise self.wrong(value, at)
        unit = found[2].upper().removesuffix("B")
        size = float(found[1]) * (1024 if unit.endswith("I") else 1000) ** _PREFIXES.index(unit.removesuffix("I"))
        if not 1 <= size <= self.most:
            raise self.wrong(value, at)
        return int(found[1]) if not unit and found[1].isdigit() else int(size)


@dataclass(frozen=True)
class Duration(Kind):
    """A duration in seconds: ``90s``, ``15m``, ``6h``, ``1d12h``, ``2w``."""

    expected: str = "a duration such as 30m, 6h, 1d12h or 2w"
    most_seconds: int = 10 * 366 * 86_400

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^((\d+[wdhms])+|\$\{.*\})$", "examples": ["30m", "6h", "36h", "7d"]}

    def read(self, value: Any, at: Place, reading: Reading) -> int:
        text = reading.variables.replace(str(value), at) if isinstance(value, Scalar) else ""
        seconds = duration_seconds(text)
        if seconds is None or not 0 < seconds <= self.most_seconds:
            raise self.wrong(value, at)
        return seconds


def duration_seconds(text: str) -> int | None:
    """The seconds of a duration such as ``1d12h``; None for other texts."""
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        return None
    return sum(int(number[:12]) * unit for number, unit in zip(found.groups(), _UNIT_SECONDS, strict=True) if number)


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of ``each``."""

    each: Kind = field(default_factory=lambda: Text("text"))
    most: int = 10_000

    def schema(self) -> Schema:
        return {"type": "array", "items": self.each.schema(), "maxItems": self.most}

    def read(self, value: Any, at: Place, reading: Reading) -> list[Any]:
        if not isinstance(value, Entries):
            raise self.wrong(value, at)
        if len(value) > self.most:
            raise Misread(at, f"the list has {len(value):,} entries; expected at most {self.most:,}")
        return [self.each.read(entry, place, reading) for entry, place in zip(value, value.places, strict=True)]


@dataclass(frozen=True)
class MapOf(Kind):
    """Texts by names of the user's own; ``check_key`` raises a :class:`RegistrySyncError` for a name."""

    each: Kind = field(default_factory=lambda: Text("text"))
    check_key: Callable[[str], object] | None = None

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self.each.schema()}

    def read(self, value: Any, at: Place, reading: Reading) -> dict[str, Any]:
        if not isinstance(value, Fields):
            raise self.wrong(value, at)
        report_repeated(value, reading)
        for key, place in value.places.items():
            if self.check_key is not None:
                try:
                    self.check_key(key)
                except RegistrySyncError as problem:
                    raise Misread(place, str(problem)) from None
        return {
            key: self.each.read(entry, value.places[key], reading) for key, entry in value.items() if entry is not None
        }


@dataclass(frozen=True)
class Key:
    """A key of a map: what it means, and an example for the reference page; ``default`` is its value when absent."""

    name: str
    kind: Kind
    description: str
    default: str = ""
    example: Any = None

    def schema(self) -> Schema:
        """The kind's schema, with null, which clears what is inherited."""
        return _with_null(self.kind.schema()) | {"description": self.description}


@dataclass(frozen=True)
class Record(Kind):
    """A map with the keys of ``keys``, and free ones that begin with ``x-``."""

    keys: tuple[Key, ...] = ()
    required: tuple[str, ...] = ()

    def schema(self) -> Schema:
        shown: Schema = {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {f"^{FREE_KEY}": {}},
            "properties": {key.name: key.schema() for key in self.keys},
        }
        return shown | ({"required": list(self.required)} if self.required else {})

    @property
    def by_name(self) -> Mapping[str, Key]:
        """The keys by their names."""
        return {key.name: key for key in self.keys}

    def read(self, value: Any, at: Place, reading: Reading) -> dict[str, Any]:
        """The values that are there. Mistakes of its keys are reported one by one, and such keys omitted."""
        if not isinstance(value, Fields):
            raise self.wrong(value, at)
        report_repeated(value, reading)
        known = self.by_name
        found = {}
        for name, entry in value.items():
            if name.startswith(FREE_KEY):
                continue
            key = known.get(name)
            if key is None:
                reading.report(Misread(value.places[name], unknown_key(name, tuple(known))))
            elif entry is not None:
                try:
                    found[name] = key.kind.read(entry, value.places[name], reading)
                except Misread as misread:
                    reading.report(_named(name, misread))
        for name in self.required:
            if value.get(name) is None:
                reading.report(Misread(at, f"{name} is missing; expected {known[name].kind.expected}"))
        return found


@dataclass(frozen=True)
class ByShape(Kind):
    """A value that is read by what it is: a scalar, a list or a map."""

    scalar: Kind | None = None
    entries: Kind | None = None
    fields: Kind | None = None

    def schema(self) -> Schema:
        return {"anyOf": [kind.schema() for kind in (self.scalar, self.entries, self.fields) if kind is not None]}

    def read(self, value: Any, at: Place, reading: Reading) -> Any:
        kind = self.scalar
        if isinstance(value, Fields | Entries):
            kind = self.fields if isinstance(value, Fields) else self.entries
        if kind is None or value is None:
            raise self.wrong(value, at)
        return kind.read(value, at, reading)


def unknown_key(name: str, known: Sequence[str]) -> str:
    """The message about a key that the definition does not have, with the nearest one that it has."""
    near = near_name(name, known)
    hint = f": {near}?" if near else f"; expected one of {', '.join(known)}"
    return f"there is no key {name[:_SHOWN]!r}{hint} (keys of your own begin with {FREE_KEY})"


def near_name(name: str, known: Sequence[str]) -> str:
    """``did you mean 'schedule'``; empty when nothing is near."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}" if near else ""


def report_repeated(value: Fields, reading: Reading) -> None:
    """Reports keys that stand more than once."""
    for key, place in value.repeated:
        reading.report(Misread(place, f"the key {key[:_SHOWN]!r} is in line {value.first[key].line} already"))


def _named(name: str, misread: Misread) -> Misread:
    """The mistake with the key it is about before its message, unless it is about a key."""
    if misread.message.startswith("this is"):
        return Misread(misread.place, f"{name}: {misread.message}")
    return misread if name in misread.message[:_SHOWN] else Misread(misread.place, f"{name}: {misread.message}")


def _with_null(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    types = schema.get("type")
    return {**schema, "type": [*(types if isinstance(types, list) else [types]), "null"]}
