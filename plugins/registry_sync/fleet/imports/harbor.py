"""Replication policies of Harbor: of its API, one or a list, or of files for its command line.

Policies that pull are imported; those that push to another registry are not, since nothing here pushes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from registry_sync.domain.known_registries import DOCKER_HUB, DOCKER_HUB_HOST
from registry_sync.domain.references import RepositoryName, TagPattern
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.imports.foreign_references import official_path, registry_of_url
from registry_sync.fleet.imports.imported_fleet import BY_DISCOVERY, EVERY_TAG, FleetImport, ImportedMirror, escaped
from registry_sync.fleet.yaml_text import Fields, Misread, Place, Scalar

_POLICY = (
    *("id", "name", "description", "src_registry", "dest_registry", "dest_namespace", "filters", "trigger"),
    *("dest_namespace_replace_count", "deletion", "replicate_deletion", "override", "enabled", "speed"),
    *("copy_by_chunk", "single_active_replication", "creation_time", "update_time"),
    *("replication_mode", "target_registry", "replication_filter"),
)
_BRACES = re.compile(r"\{([^{}]*)\}")
_MOST_NAMES = 1000
#: The key of a list that is the whole file.
POLICIES = "policies"


class _Filters(NamedTuple):
    """``names`` are patterns of repositories; ``rules`` a set of rules for tags."""

    names: list[str]
    rules: Mapping[str, Any]


def import_harbor(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of a policy that pulls, or of those of the list in ``POLICIES``."""
    for policy in into.each_fields(top.get(POLICIES, top), top.place, "a replication policy"):
        into.warn_unknown(policy, _POLICY, "a replication policy of Harbor")
        try:
            _read_policy(policy, into)
        except Misread as misread:
            name = str(policy.get("name") or "a policy")[:80]
            into.warn(misread.place, f"{name} is left out: {misread.message}")


def _read_policy(policy: Fields, into: FleetImport) -> None:
    host = _host(policy, into)
    filters = _filters(policy, into)
    fields = _fields(policy, into)
    if not filters.names:
        raise Misread(policy.place, "it has no filter of names; all repositories of a registry have no counterpart")
    for name in filters.names:
        path = official_path(host, name.strip("/"))
        try:
            RepositoryName(path)
        except RegistrySyncError:
            into.warn(
                policy.place,
                f"{name[:80]!r} selects repositories by a glob, which has no counterpart: name those that are wanted, "
                f"{BY_DISCOVERY}",
            )
            continue
        repository = _repository(path, policy, into)
        into.add(ImportedMirror(repository, f"{host}/{path}", policy.place, [filters.rules or EVERY_TAG], {**fields}))


def _host(policy: Fields, into: FleetImport) -> str:
    """The registry that is pulled from, with ``http://`` for a plain one. Raises :class:`Misread` for a push."""
    mode = str(policy.get("replication_mode") or "").lower()
    registry = policy.get("src_registry")
    if mode:
        registry = policy.get("target_registry") or registry
    target = policy.get("dest_registry")
    if mode == "push" or (not mode and isinstance(target, Fields) and target.get("url") and not _named(registry)):
        raise Misread(policy.place, "it pushes to another registry, which nothing here does")
    if not _named(registry):
        raise Misread(policy.place, "it has no src_registry to pull from")
    at = registry.place if isinstance(registry, Fields) else policy.place
    url = registry.get("url") if isinstance(registry, Fields) else None
    if not isinstance(url, Scalar):
        raise Misread(at, "the registry is known by an id or a name alone; write its url beside it, in src_registry")
    host = registry_of_url(url)
    if host in {DOCKER_HUB.host, *DOCKER_HUB.aliases, *DOCKER_HUB.websites}:
        host = DOCKER_HUB_HOST
    credential = registry.get("credential") if isinstance(registry, Fields) else None
    if isinstance(credential, Fields):
        key = credential.get("access_key")
        says = f"login {str(key)!r}" if isinstance(key, Scalar) and key else "login"
        line = credential.place.line
        into.need_connection(host, at, str(key), f"{says} and the secret as in line {line}, which is not repeated")
    return host


def _named(registry: Any) -> bool:
    if isinstance(registry, Fields):
        return any(registry.get(key) not in (None, "", "0") for key in ("url", "id", "name"))
    return bool(registry)


# -- filters ----------------------------------------------------------------------------------------------------------


def _filters(policy: Fields, into: FleetImport) -> _Filters:
    """The filters, all of which hold: of several that match tags, globs are matched as expressions."""
    names: list[list[str]] = []
    included: list[str] = []
    excluded: list[str] = []
    for kind, value, at, is_exclusion in _each_filter(policy, into):
        if kind == "name" and isinstance(value, Scalar):
            names.append(expanded(value))
        elif kind == "tag" and isinstance(value, Scalar):
            (excluded if is_exclusion else included).append(_glob(value, at))
        elif kind == "label":
            into.warn(at, "filters of labels have no counterpart: labels are Harbor's own")
        elif kind == "resource" and value == "image":
            into.warn(at, "resource: image has no counterpart: other artifacts of the repositories are mirrored too")
        elif kind != "resource" or value not in (None, "", "artifact"):
            into.warn(at, f"the filter {kind[:40]!r} has no counterpart")
    in_all = [name for name in names[0] if all(name in other for other in names[1:])] if names else []
    return _Filters(in_all, _rules([glob for glob in included if glob != "*"], excluded))


def _each_filter(policy: Fields, into: FleetImport) -> Iterator[tuple[str, Any, Place, bool]]:
    """Kind, value, line and whether it excludes, of maps with ``type`` and ``value``, or with kinds as keys."""
    key = "filters" if policy.get("filters") is not None else "replication_filter"
    for one in into.each_fields(policy.get(key), policy.places.get(key, policy.place), "filters"):
        is_exclusion = str(one.get("decoration") or "matches") == "excludes"
        if one.get("type") is None:
            yield from ((kind, value, one.places[kind], False) for kind, value in one.items() if value)
        else:
            yield str(one["type"]), one.get("value"), one.places.get("value", one.place), is_exclusion


def _rules(included: list[str], excluded: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if len(included) == 1:
        made["include"] = included
    elif included:
        made["regex_all"] = [glob_expression(glob) for glob in included]
    if excluded:
        made["exclude"] = excluded
    return made


def _glob(text: str, at: Place) -> str:
    r"""A pattern of Harbor as a glob: ``[^a]`` is ``[!a]``, and ``\`` has no counterpart. Raises :class:`Misread`."""
    if "[!" in text or "\\" in text:
        raise Misread(at, f"the pattern {text[:80]!r} has [! or a backslash, which have no counterpart")
    try:
        return TagPattern(re.sub(r"\*+", "*", text).replace("[^", "[!"))
    except RegistrySyncError as problem:
        raise Misread(at, str(problem)) from None


def glob_expression(glob: str) -> str:
    """A glob as a regular expression for the whole tag."""
    made = []
    for alternative in TagPattern(glob).alternatives:
        parts = re.split(r"(\*|\?|\[[^\]]*\])", alternative)
        made.append("".join(_expression_part(part) for part in parts))
    return made[0] if len(made) == 1 else f"(?:{'|'.join(made)})"


def _expression_part(part: str) -> str:
    if part in ("*", "?"):
        return ".*" if part == "*" else "."
    return part.replace("[!", "[^", 1) if part.startswith("[") else re.escape(part).replace(r"\-", "-")


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for: ``library/{web,db}`` is two."""
    parts = _BRACES.split(pattern)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    names = ["".join(chosen) for chosen, _ in zip(product(*choices), range(_MOST_NAMES), strict=False)]
    return list(dict.fromkeys(names))


# -- the rest ---------------------------------------------------------------------------------------------------------


def _repository(path: str, policy: Fields, into: FleetImport) -> str:
    """The name in ``dest_namespace``, which replaces the first parts of the path: all but the last for -1."""
    namespace = policy.get("dest_namespace")
    if not isinstance(namespace, Scalar) or not namespace.strip("/"):
        return path
    count = str(policy.get("dest_namespace_replace_count") or "-1")
    parts = path.split("/")
    if not re.fullmatch(r"-?\d{1,3}", count):
        into.warn(policy.places["dest_namespace_replace_count"], f"the count {count[:20]!r} cannot be read; -1 is used")
        count = "-1"
    dropped = len(parts) - 1 if int(count) < 0 else int(count)
    if dropped >= len(parts):
        into.warn(policy.place, f"{path} has no {dropped} parts to replace; its last one is kept")
        dropped = len(parts) - 1
    return "/".join((namespace.strip("/"), *parts[dropped:]))


def _fields(policy: Fields, into: FleetImport) -> dict[str, Any]:
    made = _schedule(policy, into)
    registry = policy.get("src_registry")
    if isinstance(registry, Fields) and into.flag(registry, "insecure", False):
        made["remote"] = {"ssl_validation": False}
        into.warn(registry.places["insecure"], "ssl_validation is false, as the registry was insecure")
    if not into.flag(policy, "enabled", True):
        made["enabled"] = False
    if isinstance(policy.get("description"), Scalar) and policy["description"]:
        made["description"] = escaped(policy["description"])
    if not into.flag(policy, "override", False):
        into.warn(
            policy.places.get("override", policy.place),
            "without override Harbor leaves a tag that moves as it was; here tags follow, and older versions stay",
        )
    for key in ("deletion", "replicate_deletion"):
        if into.flag(policy, key, False):
            into.warn(
                policy.places[key], f"{key} follows single events in Harbor; mode: mirror removes what is gone upstream"
            )
    speed = policy.get("speed")
    if isinstance(speed, Scalar) and re.fullmatch(r"[1-9]\d*", speed):
        into.warn(policy.places["speed"], "speed has no counterpart: limit requests in the connection")
    return made


def _schedule(policy: Fields, into: FleetImport) -> dict[str, Any]:
    """The cron, whose six fields begin with the seconds."""
    trigger = policy.get("trigger")
    if not isinstance(trigger, Fields):
        return {}
    kind, given = str(trigger.get("type") or "manual"), trigger.get("trigger_settings")
    if kind == "event_based":
        into.warn(trigger.place, "event_based has no counterpart: give a schedule, or watch tags")
    if kind != "scheduled":
        return {}
    cron = given.get("cron") if isinstance(given, Fields) else None
    fields = str(cron or "").split()
    if len(fields) != 6:
        into.warn(trigger.place, f"the cron {str(cron)[:60]!r} has not six fields; it is synced by hand")
        return {}
    return {"schedule": " ".join(fields[1:])}
