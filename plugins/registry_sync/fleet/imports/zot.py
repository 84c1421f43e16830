"""Configurations of zot: ``extensions.sync`` with registries, and what of their repositories is polled or pulled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from registry_sync.fleet.imports.foreign_references import go_seconds, interval, official_path, registry_of_url
from registry_sync.fleet.imports.foreign_tag_rules import DATES_MESSAGE, expression_rule
from registry_sync.fleet.imports.imported_fleet import EVERY_TAG, FleetImport, ImportedMirror
from registry_sync.fleet.yaml_text import Fields, Place, Scalar

_REGISTRY = (
    *("urls", "content", "ondemand", "pollinterval", "tlsverify", "certdir", "credentialhelper", "onlysigned"),
    *("preservedigest", "synclegacycosigntags", "maxretries", "retrydelay", "maxretrydelay", "synctimeout"),
    *("reqconcurrent", "reqpersec", "disablehttp2", "oauth2credentialhelper", "responseheadertimeout"),
    "manifestcheckinterval",
)
_CONTENT = ("prefix", "tags", "destination", "stripprefix")
_RULES = ("regex", "excluderegex", "semver")
_GLOB = re.compile(r"[*?\[{]")
#: A bare number of an interval is nanoseconds.
_NANOSECONDS = 1_000_000_000


def import_zot(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of ``extensions.sync``."""
    extensions = into.fields(_lowered(top).get("extensions"), top.place, "extensions")
    sync = _lowered(into.fields(_lowered(extensions).get("sync"), extensions.place, "sync"))
    into.warn_unknown(sync, ("enable", "credentialsfile", "downloaddir", "registries"), "extensions.sync of zot")
    if not into.flag(sync, "enable", True):
        into.warn(sync.places["enable"], "sync is not enabled there; its mirrors are written as if it were")
    secrets = sync.get("credentialsfile")
    for entry in into.each_fields(sync.get("registries"), sync.places.get("registries", sync.place), "urls, content"):
        registry = _lowered(entry)
        into.warn_unknown(registry, _REGISTRY, "a registry of zot")
        _read_registry(registry, None if secrets is None else str(secrets), into)


def _lowered(fields: Fields) -> Fields:
    """The fields with keys in lower case: zot reads them in any."""
    made = Fields(fields.place)
    made.repeated, made.first = fields.repeated, fields.first
    for key, value in fields.items():
        made.add(key.lower(), fields.places[key], value)
    return made


def _read_registry(registry: Fields, secrets: str | None, into: FleetImport) -> None:
    urls = into.texts(registry.get("urls"), registry.places.get("urls", registry.place), "URLs")
    if not urls:
        into.warn(registry.place, "the registry has no urls; it is left out")
        return
    url, at = urls[0]
    if len(urls) > 1:
        into.warn(at, f"{registry_of_url(url)[:80]} is used; the other {len(urls) - 1} of its urls have no counterpart")
    registry_url = registry_of_url(url)
    host = registry_url.rpartition("://")[2]
    fields = _registry_fields(registry, into)
    _say_connection(registry, registry_url, secrets, into)
    _say_rest(registry, host, into)
    entries = registry.get("content")
    if entries is None:
        into.warn(registry.place, f"{host} has no content: what is pulled on demand there has to be named here")
    seen: set[str] = set()
    for entry in into.each_fields(entries, registry.places.get("content", registry.place), "a prefix"):
        content = _lowered(entry)
        into.warn_unknown(content, _CONTENT, "content of zot")
        mirror = _mirror(content, registry_url, fields, into)
        if mirror is not None and mirror.source in seen:
            into.warn(content.place, f"{mirror.source} stands there already, and the first entry alone counts in zot")
        elif mirror is not None:
            seen.add(mirror.source)
            into.add(mirror)


def _mirror(content: Fields, registry: str, fields: Mapping[str, Any], into: FleetImport) -> ImportedMirror | None:
    """The mirror of an entry of ``content``; None, with a warning, where it has no counterpart."""
    prefix = content.get("prefix")
    at = content.places.get("prefix", content.place)
    if not isinstance(prefix, Scalar) or not prefix.strip("/"):
        into.warn(at, "prefix is missing; expected the name of a repository; the entry is left out")
        return None
    if _GLOB.search(prefix):
        into.warn(
            at, f"the prefix {str(prefix)[:80]!r} selects repositories by a glob, which has no counterpart: name them"
        )
        return None
    sets = _sets(content, into)
    if sets is None:
        return None
    name = official_path(registry, prefix.strip("/"))
    destination = str(content.get("destination") or "").strip("/")
    is_stripped = into.flag(content, "stripprefix", False)
    repository = destination if is_stripped else "/".join(part for part in (destination, name) if part)
    if not repository:
        into.warn(at, f"{name}: stripPrefix leaves no name without a destination; the source's is used")
    return ImportedMirror(repository or name, f"{registry}/{name}", content.place, sets, dict(fields))


def _sets(content: Fields, into: FleetImport) -> list[Mapping[str, Any]] | None:
    """The rules for tags: an expression, but not another, and versions; None when they select nothing."""
    at = content.places.get("tags", content.place)
    rules = _lowered(into.fields(content.get("tags"), at, "regex, excludeRegex and semver"))
    into.warn_unknown(rules, _RULES, "tags of zot")
    is_version = into.flag(rules, "semver", False)
    made: dict[str, Any] = {}
    if "regex" in rules:
        text = rules["regex"]
        if not isinstance(text, Scalar) or not text:
            into.warn(rules.places["regex"], "an empty regex selects nothing in zot; the entry is left out")
            return None
        rule, found = expression_rule(text, rules.places["regex"], into, literals=not is_version)
        made[rule] = [found]
    for text, place in into.texts(rules.get("excluderegex"), rules.places.get("excluderegex", at), "an expression"):
        rule, found = expression_rule(text, place, into)
        made["exclude" if rule == "include" else "exclude_regex"] = [found]
    if is_version:
        into.warn(rules.places["semver"], DATES_MESSAGE)
        made["semver"] = {"range": "*", "prereleases": True, "components": "1-3"}
    return [made or EVERY_TAG]


def _registry_fields(registry: Fields, into: FleetImport) -> dict[str, Any]:
    made: dict[str, Any] = {}
    poll = registry.get("pollinterval")
    if poll is not None:
        text = str(poll)
        seconds = int(text) // _NANOSECONDS if text.isdigit() else go_seconds(text)
        if seconds:
            made["schedule"] = interval(seconds)
        else:
            into.warn(registry.places["pollinterval"], f"the interval {text[:40]!r} is under a second, or none")
    if into.flag(registry, "ondemand", False):
        made["policy"] = "on_demand"
        into.warn(
            registry.places["ondemand"],
            "onDemand: blobs are fetched at the first pull, of the tags and repositories that are named; pulling "
            "others has no counterpart",
        )
    if not into.flag(registry, "tlsverify", True):
        made["remote"] = {"ssl_validation": False}
        into.warn(registry.places["tlsverify"], "ssl_validation is false, as tlsVerify was")
    retries = registry.get("maxretries")
    if isinstance(retries, Scalar) and retries.isdigit():
        made["retries"] = min(int(retries), 100)
    return made


def _say_connection(registry: Fields, host: str, secrets: str | None, into: FleetImport) -> None:
    said = []
    if secrets is not None:
        said.append(f"login and password as in {secrets[:200]}, if it has the host")
    helper = registry.get("credentialhelper")
    if helper == "ecr":
        said.append("credential_helper amazon_ecr")
    elif registry.get("oauth2credentialhelper") is not None:
        into.warn(registry.places["oauth2credentialhelper"], "oauth2CredentialHelper has no counterpart")
    elif helper:
        into.warn(registry.places["credentialhelper"], f"the helper {str(helper)[:40]!r} has no counterpart")
    if registry.get("certdir") is not None:
        said.append(f"ca_certificate and client_certificate from {str(registry['certdir'])[:200]}")
    for key, name in (("reqconcurrent", "host_concurrency"), ("reqpersec", "requests_per_second")):
        if registry.get(key) not in (None, "0"):
            said.append(f"{name} {str(registry[key])[:20]}")
    if said:
        into.need_connection(host, registry.place, "", "; ".join(said))


def _say_rest(registry: Fields, host: str, into: FleetImport) -> None:
    if into.flag(registry, "onlysigned", False):
        into.warn(registry.places["onlysigned"], f"{host}: onlySigned has no counterpart: everything is mirrored")
    if not into.flag(registry, "preservedigest", False):
        into.warn(
            registry.places.get("preservedigest", registry.place),
            "without preserveDigest zot converts images, so that digests change; digests here are the source's, and "
            "pulls by a digest of zot's have to be changed",
        )
    if not into.flag(registry, "synclegacycosigntags", True):
        place: Place = registry.places["synclegacycosigntags"]
        into.warn(place, "syncLegacyCosignTags: here include_referrers means tags of signatures as well")
