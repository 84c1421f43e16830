"""The fields of requests for rules for tags: checked where they are sent, kept as they were sent."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from registry_sync.api.fields import invalid
from registry_sync.domain.remote import OPTIONS, read_options
from registry_sync.domain.tag_options import MAX_DIGESTS, MAX_SETS
from registry_sync.domain.tag_rules import MAX_NEWEST, MAX_REGEX_CHARACTERS, MAX_REGEXES, CountOf, TagOrder
from registry_sync.domain.tag_versions import SuffixRule
from registry_sync.errors import ConfigurationError, InvalidReference

_TEXT: Mapping[str, Any] = {"type": "string"}
_PATTERNS: Mapping[str, Any] = {"type": "array", "items": {"type": "string", "maxLength": 255}}
_REGEXES: Mapping[str, Any] = {
    "type": "array",
    "items": {"type": "string", "maxLength": MAX_REGEX_CHARACTERS},
    "maxItems": MAX_REGEXES,
}
_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 1, "maximum": MAX_NEWEST}


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    found = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


_SEMVER: Mapping[str, Any] = {
    "anyOf": [
        _TEXT,
        _object(
            {
                "range": _TEXT,
                "suffixes": {"type": "string", "enum": [rule.value for rule in SuffixRule]},
                "prereleases": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": _TEXT}]},
                "components": {"anyOf": [_TEXT, {"type": "integer", "minimum": 1}]},
                "version_from": _TEXT,
            }
        ),
    ]
}
_NEWEST: Mapping[str, Any] = {
    "anyOf": [
        _COUNT,
        {"type": "string", "pattern": "^[0-9]{1,7}$"},
        _object({"count": _COUNT, "of": {"type": "string", "enum": [of.value for of in CountOf]}}, "count"),
    ]
}
_DIGESTS: Mapping[str, Any] = {
    "type": "array",
    "items": {"anyOf": [_TEXT, _object({"digest": _TEXT, "tag": _TEXT}, "digest")]},
    "maxItems": MAX_DIGESTS,
}
_OF_SETS: Mapping[str, Any] = {
    "include": _PATTERNS,
    "exclude": _PATTERNS,
    "regex": _REGEXES,
    "regex_all": _REGEXES,
    "exclude_regex": _REGEXES,
    "semver": _SEMVER,
    "newest": _NEWEST,
    "order": {"type": "string", "enum": [order.value for order in TagOrder]},
    "newer_than": _TEXT,
    "digests": _DIGESTS,
}


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*schema.get("anyOf", [dict(schema)]), {"type": "null"}]}


#: The JSON Schema of each rule for tags that is an option of a remote, by the name of the option.
RULE_SCHEMAS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **{name: schema for name, schema in _OF_SETS.items() if name in OPTIONS and name != "order"},
        "tag_sets": {
            "type": "array",
            "items": _object({name: _nullable(schema) for name, schema in _OF_SETS.items()}),
            "maxItems": MAX_SETS,
        },
    }
)
#: Those of them that are lists; null is an empty one.
RULE_LISTS = frozenset(name for name, schema in RULE_SCHEMAS.items() if schema.get("type") == "array")


def rule_field(name: str) -> Any:
    """The type of the field of an option: its value, or null."""

    def check(value: Any) -> Any:
        try:
            read_options({name: value})
        except (ConfigurationError, InvalidReference) as problem:
            raise invalid(str(problem)) from None
        return value

    schema = {**_nullable(RULE_SCHEMAS[name]), "description": OPTIONS[name].description}
    return Annotated[Any, BeforeValidator(check), WithJsonSchema(schema)]
