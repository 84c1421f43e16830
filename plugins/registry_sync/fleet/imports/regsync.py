"""Files of regclient's ``regsync``: entries of a source and a target, with expressions and ranges for tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.fleet.imports.foreign_references import ImageReference, go_cron, go_seconds, interval, parse_image
from registry_sync.fleet.imports.foreign_tag_rules import expression_rule, read_ranges, regclient_set
from registry_sync.fleet.imports.imported_fleet import BY_DISCOVERY, EVERY_TAG, FleetImport, ImportedMirror
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, Scalar

_TIMES = ("schedule", "interval")
_SHARED = (
    *_TIMES,
    *("ratelimit", "backup", "parallel", "fastCheck", "forceRecursive", "includeExternal", "mediaTypes", "hooks"),
    *("referrers", "digestTags", "referrerFilters", "referrerSource", "referrerTarget", "referrerSlow"),
)
_DEFAULTS = (*_SHARED, "skipDockerConfig", "userAgent", "blobLimit", "cacheCount", "cacheTime")
_ENTRY = (*_SHARED, "source", "target", "type", "tags", "tagSets", "repos", "platform", "platforms")
_RULES = ("allow", "deny", "semverRange")
_CREDS = (
    *("registry", "hostname", "user", "pass", "token", "credHelper", "credExpire", "credHost", "tls", "regcert"),
    *("clientCert", "clientKey", "mirrors", "priority", "pathPrefix", "repoAuth", "reqPerSec", "reqConcurrent"),
    *("blobChunk", "blobMax", "apiOpts", "scheme"),
)
_SOURCE = re.compile(r"\{\{-?\s*\.Sync\.Source\s*-?\}\}")
#: One of the parts between which a text stands in the source, as Go's templates write it.
_PART = re.compile(r'\{\{-?\s*index\s+\(\s*split\s+\.Sync\.Source\s+["`]([^"`\\]+)["`]\s*\)\s+([0-9]{1,3})\s*-?\}\}')
_TEMPLATE = re.compile(r'\{\{-?\s*env\s+["`]([A-Za-z_][A-Za-z0-9_]*)["`]\s*-?\}\}')
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"


@dataclass
class _Registries:
    """What ``creds`` say: fields of mirrors by host, and the scheme in front of a source.

    ``sources`` and ``targets`` are the texts of all entries.
    """

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)

    def is_only_filled(self, host: str) -> bool:
        """Whether images go to a registry and none come from there: nothing of it is read here."""
        within = f"{host}/"
        return any(text.startswith(within) for text in self.targets) and not any(
            text.startswith(within) for text in self.sources
        )


def import_regsync(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of the file."""
    into.warn_unknown(top, ("version", "creds", "defaults", "sync"), "regsync's file")
    listed = top.get("sync")
    entries = [entry for entry in (listed if isinstance(listed, Entries) else ()) if isinstance(entry, Fields)]
    sources, targets = (tuple(str(entry.get(key) or "") for entry in entries) for key in ("source", "target"))
    registries = _Registries(sources, targets)
    for creds in into.each_fields(top.get("creds"), top.places.get("creds", top.place), "a registry"):
        _read_creds(creds, registries, into)
    defaults = into.fields(top.get("defaults"), top.places.get("defaults", top.place), "defaults")
    into.warn_unknown(defaults, _DEFAULTS, "defaults in regsync's file")
    for entry in into.each_fields(top.get("sync"), top.places.get("sync", top.place), "source, target and type"):
        into.warn_unknown(entry, _ENTRY, "an entry in regsync's file")
        try:
            _read_entry(entry, defaults, registries, into)
        except Misread as misread:
            into.warn(misread.place, f"{misread.message}; the entry is left out")


# -- registries -------------------------------------------------------------------------------------------------------


def _read_creds(creds: Fields, registries: _Registries, into: FleetImport) -> None:
    into.warn_unknown(creds, _CREDS, "creds in regsync's file")
    try:
        host = _resolved(creds, "registry", into)
        real = _resolved(creds, "hostname", into) if creds.get("hostname") is not None else host
    except Misread as misread:
        into.warn(misread.place, f"{misread.message}; the registry is left out")
        return
    at = creds.place
    scheme, _, host = host.rpartition("://")
    host = host.partition("/")[0]  # regclient trims a path, as a login is of a host
    real = real.rpartition("://")[2].partition("/")[0]
    if scheme == "http":
        registries.plain.add(host)
    if real != host:
        into.warn(creds.places["hostname"], f"{host} is reached at {real}: write {real} as the registry of its sources")
    tls = str(creds.get("tls") or "enabled")
    if tls == "disabled":
        registries.plain.add(host)
    elif tls == "insecure":
        into.warn(creds.places["tls"], f"{host}: ssl_validation is false, as tls was insecure")
        registries.fields.setdefault(host, {})["remote"] = {"ssl_validation": False}
    for key in ("mirrors", "pathPrefix", "repoAuth"):
        if creds.get(key) not in (None, "false"):
            into.warn(creds.places[key], f"{host}: {key} has no counterpart and is left out")
    says = [] if registries.is_only_filled(host) else _connection_says(creds, host, into)
    if says:
        into.need_connection(f"http://{host}" if host in registries.plain else host, at, "", "; ".join(says))


def _connection_says(creds: Fields, host: str, into: FleetImport) -> list[str]:
    """What to enter in the connection of a registry; never a secret."""
    said = []
    user = creds.get("user")
    if isinstance(user, Scalar):
        named = _TEMPLATE.sub(r"the variable \1", user)
        said.append(f"login {named!r}" if named == user else f"login from {named}")
    for key, name in (("pass", "password"), ("token", "identity_token")):
        if creds.get(key) is not None:
            line = creds.places[key].line
            said.append(f"{name} as in line {line} of this file, which is not repeated")
    helper = str(creds.get("credHelper") or "")
    if "ecr" in helper:
        said.append("credential_helper amazon_ecr")
    elif helper:
        into.warn(creds.places["credHelper"], f"{host}: the helper {helper[:80]!r} has no counterpart")
    certificates = {"regcert": "ca_certificate", "clientCert": "client_certificate", "clientKey": "client_private_key"}
    said += [f"{name} from line {creds.places[key].line}" for key, name in certificates.items() if creds.get(key)]
    for key, name in (("reqPerSec", "requests_per_second"), ("reqConcurrent", "host_concurrency")):
        if creds.get(key) not in (None, "0"):
            said.append(f"{name} {str(creds[key])[:20]}")
    return said


# -- entries ----------------------------------------------------------------------------------------------------------


def _read_entry(entry: Fields, defaults: Fields, registries: _Registries, into: FleetImport) -> None:
    source, target = _resolved(entry, "source", into), _resolved(entry, "target", into)
    kind = str(entry.get("type") or "")
    if source.startswith("ocidir://"):
        raise Misread(entry.places["source"], f"{source[:80]!r} is a folder and no registry")
    if kind == "registry":
        raise Misread(
            entry.places["type"],
            f"all repositories of {source[:80]} have no counterpart: name those that are wanted, {BY_DISCOVERY}",
        )
    if kind not in ("image", "repository"):
        raise Misread(entry.places.get("type", entry.place), f"the type is {kind[:40]!r}, and not image or repository")
    image, wanted = parse_image(source), parse_image(target)
    if target.startswith("ocidir://"):
        into.warn(entry.places["target"], "a target in a folder has no counterpart: what is synced is stored here")
        wanted = ImageReference("", target.removeprefix("ocidir://").partition(":")[0].lstrip("./"), None, None)
    into.note_unfilled(entry.places["target"], wanted.host)
    sets = _image_sets(entry, image, wanted, into) if kind == "image" else _tag_sets(entry, into)
    if not sets:
        raise Misread(entry.place, "nothing that it selects can be read")
    scheme = "http://" if image.host in registries.plain else ""
    fields = {**_entry_fields(entry, defaults, into)}
    remote = {**registries.fields.get(image.host, {}).get("remote", {}), **fields.pop("remote", {})}
    if remote:
        fields["remote"] = remote
    into.add(ImportedMirror(wanted.path or image.path, f"{scheme}{image.source}", entry.place, sets, fields))


def _resolved(fields: Fields, key: str, into: FleetImport) -> str:
    """A text in which templates of variables are variables, and those of the source are the entry's source or its part.

    Raises :class:`Misread` for other templates, and for a part that the source does not have.
    """
    value = fields.get(key)
    if not isinstance(value, Scalar):
        raise Misread(fields.places.get(key, fields.place), f"{key} is missing")
    said = str(value)
    if key == "target":
        source = str(fields.get("source") or "")
        said = _SOURCE.sub(lambda _found: source, said)
        for found in list(_PART.finditer(said)):
            parts, number = source.split(found[1]), int(found[2])
            if number >= len(parts):
                raise Misread(fields.places[key], f"{found[0][:80]!r} is no part of the source {source[:80]!r}")
            said = said.replace(found[0], parts[number])
    for name in _TEMPLATE.findall(said):
        into.note_variable(fields.places[key], name)
    text = _TEMPLATE.sub(r"${\1}", said)
    if "{{" in text:
        raise Misread(fields.places[key], f"the template {str(value)[:80]!r} in {key} has no counterpart")
    return text


def _image_sets(
    entry: Fields, image: ImageReference, wanted: ImageReference, into: FleetImport
) -> list[Mapping[str, Any]]:
    """The one tag or digest of an entry for an image."""
    for key in ("tags", "tagSets"):
        if entry.get(key) is not None:
            into.warn(entry.places[key], f"regsync ignores {key} of an entry of type image; they are left out")
    tag = wanted.tag or ("latest" if image.digest else image.tag or "latest")
    if image.digest:
        return [{"digests": [{"digest": image.digest, "tag": tag}]}]
    if tag != (image.tag or "latest"):
        into.warn(
            entry.places["target"],
            f"{image.source}: the tag {image.tag or 'latest'} becomes {tag} there; here tags keep their names",
        )
    return [{"include": [image.tag or "latest"]}]


def _tag_sets(entry: Fields, into: FleetImport) -> list[Mapping[str, Any]]:
    given = [entry["tags"]] if entry.get("tags") is not None else []
    more = entry.get("tagSets")
    given += more if isinstance(more, Entries) else []
    sets = []
    for rules in given:
        fields = into.fields(rules, entry.places.get("tags", entry.place), "allow, deny and semverRange")
        into.warn_unknown(fields, _RULES, "tags in regsync's file")
        made = _tag_set(fields, into)
        if made is not None:
            sets.append(made)
    return sets if given else [EVERY_TAG]


def _tag_set(rules: Fields, into: FleetImport) -> Mapping[str, Any] | None:
    """A set of rules: any of ``allow``, none of ``deny``, all ranges; None when a range cannot be read."""
    made: dict[str, Any] = {}
    places = {key: rules.places.get(key, rules.place) for key in _RULES}
    ranges = read_ranges(into.texts(rules.get("semverRange"), places["semverRange"], "a range"), into, regclient_set)
    if ranges is None:
        return None
    for text, at in into.texts(rules.get("allow"), places["allow"], "expressions"):
        rule, found = expression_rule(f"^{text}$", at, into, literals=not ranges)
        made.setdefault(rule, []).append(found)
    for text, at in into.texts(rules.get("deny"), places["deny"], "expressions"):
        rule, found = expression_rule(f"^{text}$", at, into)
        made.setdefault("exclude" if rule == "include" else "exclude_regex", []).append(found)
    if ranges:
        bounds = " ".join(one["semver"]["range"] for one in ranges)
        made["semver"] = {**ranges[0]["semver"], "range": bounds}
        made["exclude"] = [*made.get("exclude", ()), *ranges[0]["exclude"]]
    return made


def _entry_fields(entry: Fields, defaults: Fields, into: FleetImport) -> dict[str, Any]:
    """Further keys of the mirror, of the entry or else of the defaults."""
    made = _schedule(entry, defaults, into)
    said = Fields(entry.place)
    said.merge(entry)
    said.merge(defaults)
    if entry.get("platforms") is not None:
        made["platforms"] = [text for text, _ in into.texts(entry["platforms"], entry.places["platforms"], "platforms")]
    elif entry.get("platform") is not None:
        made["platforms"] = [str(entry["platform"])]
        into.warn(entry.places["platform"], "platform: the tag keeps the index's digest here, with that platform alone")
    _read_referrers(said, made, into)
    if into.flag(said, "includeExternal", False):
        made["remote"] = {"include_foreign_layers": True}
    if said.get("mediaTypes") is not None:
        types = [text for text, _ in into.texts(said["mediaTypes"], said.places["mediaTypes"], "media types")]
        if any(text.startswith(_SCHEMA1) for text in types):
            made["remote"] = {**made.get("remote", {}), "allow_schema1": True}
        else:
            into.warn(said.places["mediaTypes"], "mediaTypes has no counterpart: every type of image is mirrored")
    _say_rest(said, into)
    return made


def _schedule(entry: Fields, defaults: Fields, into: FleetImport) -> dict[str, Any]:
    """``schedule`` goes before ``interval``; either in an entry replaces both of the defaults."""
    fields = entry if any(entry.get(key) is not None for key in _TIMES) else defaults
    if fields.get("schedule") is not None:
        return {**go_cron(str(fields["schedule"]))}
    if fields.get("interval") is None:
        into.warn(entry.place, "without schedule and interval `regsync server` ignores it; it is synced by hand")
        return {}
    seconds = go_seconds(str(fields["interval"]))
    if not seconds:
        into.warn(fields.places["interval"], f"the interval {str(fields['interval'])[:40]!r} cannot be read")
        return {}
    return {"schedule": interval(seconds)}


def _read_referrers(said: Fields, made: dict[str, Any], into: FleetImport) -> None:
    both = [into.flag(said, key, False) for key in ("referrers", "digestTags")]
    made["include_referrers"] = any(both)
    if any(both) and not all(both):
        key = "referrers" if both[0] else "digestTags"
        other = "digestTags" if both[0] else "referrers"
        into.warn(said.places[key], f"{other} is false: here include_referrers means both of them")
    for key in ("referrerFilters", "referrerSource", "referrerTarget", "referrerSlow"):
        if said.get(key) is not None:
            into.warn(said.places[key], f"{key} has no counterpart: all referrers come from the source")


def _say_rest(said: Fields, into: FleetImport) -> None:
    if said.get("hooks") is not None:
        into.warn(said.places["hooks"], "hooks are never run by regsync; see the asset events of versions instead")
    if said.get("backup") is not None:
        into.note(said.places["backup"], "backup is not needed: older versions stay, and a rollback needs no copy")
    if said.get("parallel") is not None:
        into.note(said.places["parallel"], "parallel: how many syncs run at once is said by a pool of Airflow")
    if isinstance(said.get("ratelimit"), Fields):
        least = said["ratelimit"].get("min")
        if least is not None:
            into.note(
                said["ratelimit"].places["min"], f"ratelimit: set rate_limit_floor {least[:20]} in the connection"
            )
