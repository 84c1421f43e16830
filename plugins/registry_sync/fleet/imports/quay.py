"""Repository mirrors of Quay, as its API returns them: one, a list, or a map of them by the repository that they fill.

Quay removes tags that are gone upstream or match no more, so that the mirrors are in mode ``mirror``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagPattern
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.imports.foreign_references import interval, parse_image
from registry_sync.fleet.imports.imported_fleet import BY_DISCOVERY, EVERY_TAG, FleetImport, ImportedMirror
from registry_sync.fleet.yaml_text import Fields, Place, Scalar

#: The key of a list that is the whole file.
MIRRORS = "mirrors"
_REFERENCE = "external_reference"
_ORGANIZATION = ("external_registry_type", "external_namespace")
_MIRROR = (
    *(_REFERENCE, "is_enabled", "mirror_type", "sync_interval", "sync_start_date", "root_rule", "repository", "name"),
    *("external_registry_username", "external_registry_password", "external_registry_config", "architecture_filter"),
    *("robot_username", "skopeo_timeout_interval", "sync_expiration_date", "sync_retries_remaining", "sync_status"),
    *("namespace", "last_sync", "status_message"),
)
_CONFIG = ("verify_tls", "unsigned_images", "proxy")
_RULE = ("rule", "rule_kind", "rule_type", "rule_value")
_PROXY = ("http_proxy", "https_proxy", "no_proxy")
_DAY_SECONDS = 86_400


def is_quay(top: Fields) -> bool:
    """Whether a file has mirrors of Quay."""
    values = (top, *top.values(), *(top.get(MIRRORS) or ()))
    return any(isinstance(value, Fields) and (_REFERENCE in value or _ORGANIZATION[1] in value) for value in values)


def import_quay(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of the file."""
    into.mode = SyncMode.MIRROR
    into.warn(top.place, "Quay drops signatures; here include_referrers is true, and they are mirrored as well")
    for name, entry in _entries(top, into):
        if any(key in entry for key in _ORGANIZATION):
            into.warn(
                entry.place,
                "a mirror of an organization has no counterpart here: name its repositories, "
                f"{BY_DISCOVERY}; it is left out",
            )
            continue
        into.warn_unknown(entry, _MIRROR, "a mirror of Quay")
        _read_mirror(name, entry, into)


def _entries(top: Fields, into: FleetImport) -> Iterator[tuple[str | None, Fields]]:
    """Each mirror, with the repository that it fills where the file says it."""
    if MIRRORS in top:
        for entry in into.each_fields(top[MIRRORS], top.places[MIRRORS], "a mirror with external_reference"):
            yield None, entry
    elif _REFERENCE in top or any(key in top for key in _ORGANIZATION):
        yield None, top
    else:
        for name, value in top.items():
            entry = into.fields(value, top.places[name], "a mirror with external_reference")
            if entry:
                yield name, entry


def _read_mirror(name: str | None, entry: Fields, into: FleetImport) -> None:
    reference = entry.get(_REFERENCE)
    if not isinstance(reference, Scalar) or not reference:
        into.warn(entry.places.get(_REFERENCE, entry.place), f"{_REFERENCE} is missing; the mirror is left out")
        return
    image = parse_image(reference)
    if image.tag or image.digest:
        into.warn(entry.places[_REFERENCE], f"{reference[:100]} names a tag, which Quay ignores")
    filled = name or _text(entry, "repository") or _text(entry, "name")
    namespace = _text(entry, "namespace")
    repository = f"{namespace}/{filled}" if filled and namespace and "/" not in filled else filled
    sets = _sets(entry, into)
    if not sets:
        into.warn(entry.place, f"{image.source}: no rule that selects a tag can be read; it is left out")
        return
    into.add(
        ImportedMirror(repository or image.path, image.source, entry.place, sets, _fields(entry, image.host, into))
    )


def _text(entry: Fields, key: str) -> str | None:
    value = entry.get(key)
    return str(value) if isinstance(value, Scalar) and value else None


def _sets(entry: Fields, into: FleetImport) -> list[Mapping[str, Any]]:
    """The globs of the one rule: Python's ``fnmatch``, in which braces and ``^`` mean themselves."""
    rule = into.fields(entry.get("root_rule"), entry.places.get("root_rule", entry.place), "rule_kind and rule_value")
    into.warn_unknown(rule, _RULE, "root_rule of Quay")
    kind = _text(rule, "rule_kind") or _text(rule, "rule_type") or _text(rule, "rule")
    if kind not in (None, "tag_glob_csv", "TAG_GLOB_CSV"):
        into.warn(rule.place, f"the rule {str(kind)[:40]!r} has no counterpart; it is left out")
        return []
    at = rule.places.get("rule_value", rule.place)
    given = into.texts(rule.get("rule_value"), at, "globs")
    if not given:
        return [EVERY_TAG] if entry.get("root_rule") is None else []
    found = []
    if isinstance(rule.get("rule_value"), Scalar):
        given = [(part.strip(), at) for part in given[0][0].split(",")]
    for text, place in given:
        glob = re.sub(r"\[\^(?=[^\]])", "[", text)
        try:
            if "{" in glob or "}" in glob:
                into.warn(place, f"the glob {text[:80]!r} matches no tag, since Quay takes braces for themselves")
            else:
                found.append(str(TagPattern(re.sub(r"\*+", "*", glob))))
        except RegistrySyncError as problem:
            into.warn(place, f"{problem}; the glob is left out")
    return [EVERY_TAG] if "*" in found else [{"include": found}] if found else []


def _fields(entry: Fields, host: str, into: FleetImport) -> dict[str, Any]:
    made: dict[str, Any] = _schedule(entry, into)
    if not into.flag(entry, "is_enabled", True):
        made["enabled"] = False
    architectures = into.texts(
        entry.get("architecture_filter"), entry.places.get("architecture_filter", entry.place), "architectures"
    )
    if architectures:
        made["platforms"] = [f"linux/{text}" for text, _ in architectures]
    remote = _remote(entry, host, into)
    if remote:
        made["remote"] = remote
    user = _text(entry, "external_registry_username")
    if user is not None:
        at = entry.places["external_registry_username"]
        conn_id = into.need_connection(host, at, user, f"login {user!r} and its password, which Quay does not return")
        if conn_id is not None:
            made["conn_id"] = conn_id
    return made


def _remote(entry: Fields, host: str, into: FleetImport) -> dict[str, Any]:
    at = entry.places.get("external_registry_config", entry.place)
    config = into.fields(entry.get("external_registry_config"), at, "verify_tls, unsigned_images and proxy")
    into.warn_unknown(config, _CONFIG, "external_registry_config of Quay")
    made: dict[str, Any] = {}
    if not into.flag(config, "verify_tls", True):
        made["ssl_validation"] = False
        into.warn(config.places["verify_tls"], f"{host}: ssl_validation is false, as verify_tls was")
    proxy = into.fields(config.get("proxy"), config.places.get("proxy", config.place), "http_proxy and https_proxy")
    into.warn_unknown(proxy, _PROXY, "proxy of Quay")
    url = _text(proxy, "https_proxy") or _text(proxy, "http_proxy")
    if url is not None and "@" in url:
        into.warn(proxy.place, f"{host}: the proxy needs a login: give its URL in the connection")
    elif url is not None:
        made["proxy_url"] = url
    if _text(proxy, "no_proxy") is not None:
        into.warn(proxy.places["no_proxy"], f"{host}: no_proxy has no counterpart: a mirror has one proxy or none")
    return made


def _schedule(entry: Fields, into: FleetImport) -> dict[str, Any]:
    """An interval that divides a day as a cron from the time of the first sync on; others as intervals."""
    text = _text(entry, "sync_interval")
    if text is None or not re.fullmatch(r"\d{1,9}", text) or not int(text):
        into.warn(entry.places.get("sync_interval", entry.place), "there is no sync_interval; it is synced by hand")
        return {}
    seconds = int(text)
    start = _start(entry, into)
    hours, rest = divmod(seconds, 3600)
    if start is None or rest or not ((hours and 24 % hours == 0) or seconds == 7 * _DAY_SECONDS):
        return {"schedule": interval(seconds)}
    if seconds == 7 * _DAY_SECONDS:
        return {"schedule": f"{start.minute} {start.hour} * * {start.isoweekday() % 7}"}
    at_hours = ",".join(str(hour) for hour in range(start.hour % hours, 24, hours))
    return {"schedule": f"{start.minute} {'*' if hours == 1 else at_hours} * * *"}


def _start(entry: Fields, into: FleetImport) -> datetime | None:
    text = _text(entry, "sync_start_date")
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007  Quay's times are UTC, as schedules are
    except ValueError:
        _warn_of_start(entry.places["sync_start_date"], text, into)
        return None


def _warn_of_start(place: Place, text: str, into: FleetImport) -> None:
    into.warn(place, f"the time {text[:40]!r} cannot be read; the interval counts from run to run")
