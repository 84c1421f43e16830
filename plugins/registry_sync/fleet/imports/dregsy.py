"""Files of dregsy: tasks with a source, a target and mappings, whose ``tags`` are names, ranges and expressions.

Entries of ``tags`` are alternatives; every ``keep:`` holds for all of them but names and digests, and
``keep: latest n`` comes last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DOCKER_HUB, DOCKER_HUB_HOST
from registry_sync.domain.tag_rules import replaced
from registry_sync.errors import ConfigurationError, RegistrySyncError
from registry_sync.fleet.imports.foreign_references import interval, official_path
from registry_sync.fleet.imports.foreign_tag_rules import blang_set, whole_expression
from registry_sync.fleet.imports.imported_fleet import BY_DISCOVERY, EVERY_TAG, FleetImport, ImportedMirror, literal_tag
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, Place, Scalar

_TOP = ("relay", "skopeo", "docker", "dockerhost", "api-version", "lister", "watch", "tasks")
_TASK = ("name", "interval", "verbose", "source", "target", "mappings")
_SIDE = ("registry", "auth", "auth-refresh", "skip-tls-verify", "lister")
_MAPPING = ("from", "to", "tags", "platform")
_LEAST_SECONDS = 30


def is_dregsy(top: Fields) -> bool:
    """Whether a file has tasks with mappings."""
    tasks = top.get("tasks")
    return isinstance(tasks, Entries) and any(isinstance(task, Fields) and "mappings" in task for task in tasks)


def import_dregsy(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of the file."""
    into.warn_unknown(top, _TOP, "dregsy's file")
    for task in into.each_fields(top.get("tasks"), top.places.get("tasks", top.place), "a task"):
        into.warn_unknown(task, _TASK, "a task of dregsy")
        try:
            _read_task(task, into)
        except Misread as misread:
            into.warn(misread.place, f"{misread.message}; the task is left out")


def _read_task(task: Fields, into: FleetImport) -> None:
    source = _side(task, "source", into)
    target = _side(task, "target", into)
    into.note_unfilled(target.place, str(target["registry"]))
    host = _host(str(source["registry"]))
    fields = {**_schedule(task, into), **_source_fields(source, host, into)}
    at = task.places.get("mappings", task.place)
    for mapping in into.each_fields(task.get("mappings"), at, "from, to and tags"):
        into.warn_unknown(mapping, _MAPPING, "a mapping of dregsy")
        try:
            into.add(_mirror(mapping, host, fields, into))
        except Misread as misread:
            into.warn(misread.place, f"{misread.message}; the mapping is left out")


def _side(task: Fields, key: str, into: FleetImport) -> Fields:
    side = into.fields(task.get(key), task.places.get(key, task.place), "a registry")
    into.warn_unknown(side, _SIDE, f"{key} of dregsy")
    if not isinstance(side.get("registry"), Scalar):
        raise Misread(side.place, f"{key} has no registry")
    return side


def _host(registry: str) -> str:
    registry = registry.rpartition("://")[2].rstrip("/")
    names = {DOCKER_HUB.host, *DOCKER_HUB.aliases, *DOCKER_HUB.websites}
    return DOCKER_HUB_HOST if registry in names else registry


def _schedule(task: Fields, into: FleetImport) -> dict[str, Any]:
    text = str(task.get("interval") or "0")
    if not re.fullmatch(r"\d{1,9}", text):
        into.warn(task.places["interval"], f"the interval {text[:40]!r} is no number of seconds; it is synced by hand")
        return {}
    if not int(text):
        into.note(task.place, "without an interval dregsy runs a task once; its mirrors are synced by hand")
        return {}
    return {"schedule": interval(max(int(text), _LEAST_SECONDS))}


def _source_fields(source: Fields, host: str, into: FleetImport) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if into.flag(source, "skip-tls-verify", False):
        made["remote"] = {"ssl_validation": False}
        into.warn(source.places["skip-tls-verify"], f"{host}: ssl_validation is false, as skip-tls-verify was true")
    auth, refresh = source.get("auth"), source.get("auth-refresh")
    if refresh is not None:
        says = "credential_helper amazon_ecr"
    elif isinstance(auth, Scalar) and auth and auth != "none":
        says = "the login and the password that auth of this line has in base64, which are not repeated"
    else:
        return made
    at = source.places["auth" if refresh is None else "auth-refresh"]
    conn_id = into.need_connection(host, at, str(auth), says)
    return made if conn_id is None else {**made, "conn_id": conn_id}


def _mirror(mapping: Fields, host: str, fields: Mapping[str, Any], into: FleetImport) -> ImportedMirror:
    given = mapping.get("from")
    if not isinstance(given, Scalar) or not given:
        raise Misread(mapping.place, "from is missing")
    if given.startswith("regex:"):
        raise Misread(
            mapping.places["from"],
            f"{given[:80]!r} selects repositories by an expression; name those that are wanted, {BY_DISCOVERY}",
        )
    path = official_path(host, given.strip("/"))
    made = dict(fields)
    platform = mapping.get("platform")
    if platform is None:
        into.warn(
            Place(into.file, 0), "all platforms are kept; dregsy copies that of its host unless platform says more"
        )
    elif platform != "all":
        made["platforms"] = [str(platform)]
        into.warn(
            mapping.places["platform"], "platform: the tag keeps the index's digest here, with that platform alone"
        )
    return ImportedMirror(_target(mapping, path), f"{host}/{path}", mapping.place, _sets(mapping, into), made)


def _target(mapping: Fields, path: str) -> str:
    """The repository that is filled: ``to``, or what its expression makes of the source's path."""
    wanted = mapping.get("to")
    if not isinstance(wanted, Scalar) or not wanted:
        return path
    if not wanted.startswith("regex:"):
        return str(wanted).strip("/")
    pattern, comma, replacement = str(wanted).removeprefix("regex:").partition(",")
    if not comma or len(path) > 255:
        raise Misread(mapping.places["to"], f"{wanted[:80]!r} is no expression and replacement")
    try:
        return replaced(pattern, re.sub(r"\$\{?(\w+)\}?", r"\\g<\1>", replacement), path).strip("/")
    except RegistrySyncError:
        raise Misread(mapping.places["to"], f"{wanted[:80]!r} cannot be applied to {path}") from None


@dataclass
class _Rules:
    """The entries of ``tags`` by what they are."""

    names: list[str] = field(default_factory=list)
    digests: list[Any] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)
    keeps: dict[str, list[str]] = field(default_factory=dict)
    newest: int | None = None


def _sets(mapping: Fields, into: FleetImport) -> list[Mapping[str, Any]]:
    """A set for each range and expression, with what is kept of it; names and digests are a set of their own."""
    at = mapping.places.get("tags", mapping.place)
    rules = _Rules()
    entries = into.texts(mapping.get("tags"), at, "tags, ranges and expressions")
    for text, place in entries:
        try:
            _read_entry(text.strip(), place, rules, into)
        except (ConfigurationError, ValueError) as problem:  # noqa: PERF203  one entry must not cost the others
            into.warn(place, f"{problem}; the entry is left out")
    sets: list[Mapping[str, Any]] = []
    only_keeps = not (rules.sets or rules.names or rules.digests)
    if entries and only_keeps and not rules.keeps and rules.newest is None:
        raise Misread(at, "nothing that tags select can be read")
    for one in rules.sets or ([{}] if only_keeps else []):
        made = {**one, **{key: [*one.get(key, ()), *found] for key, found in rules.keeps.items()}}
        if rules.newest is not None:
            made["newest"] = {"count": rules.newest, "of": "tags"}
        sets.append(made or EVERY_TAG)
    if rules.newest is not None and len(sets) > 1:
        into.warn(at, "keep: latest is of each of several rules here, and of all of them together in dregsy")
    if rules.names or rules.digests:
        exact = {"include": rules.names, "digests": rules.digests}
        sets.append({key: value for key, value in exact.items() if value})
    return sets


def _read_entry(text: str, place: Place, rules: _Rules, into: FleetImport) -> None:
    kind, colon, value = text.partition(":")
    value = value.strip()
    if kind == "semver" and colon:
        rules.sets.append(blang_set(value, place, into))
    elif kind == "keep" and re.fullmatch(r"latest\s+\d{1,6}", value):
        rules.newest = int(value.split()[1])
    elif kind in ("regex", "keep") and colon:
        is_inverse = value.startswith("!")
        expression = _anchored(value.removeprefix("!").strip())
        key = "exclude_regex" if is_inverse else "regex_all" if kind == "keep" else "regex"
        if kind == "keep":
            rules.keeps.setdefault(key, []).append(expression)
        else:
            rules.sets.append({key: [expression]})
    elif "sha256:" in text:
        tag, _, digest = text.rpartition("@")
        found = Digest(digest or text)
        rules.digests.append({"digest": found, "tag": tag} if tag else found)
    elif literal_tag(text) is None:
        raise ConfigurationError(f"{text[:80]!r} is no tag")
    else:
        rules.names.append(text)


def _anchored(pattern: str) -> str:
    """``^`` and ``$`` are added where the whole pattern lacks them, not around its alternatives."""
    start, end = "" if pattern.startswith("^") else "^", "" if pattern.endswith("$") else "$"
    return whole_expression(f"{start}{pattern}{end}")
