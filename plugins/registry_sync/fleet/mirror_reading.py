"""From the fields of one mirror in a file to a checked :class:`~registry_sync.domain.mirrors.Mirror`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain.mirrors import Mirror
from registry_sync.domain.private_keys import has_private_key
from registry_sync.domain.references import RegistryUrl, RepositoryName
from registry_sync.domain.remote import OPTIONS, RemoteSpec
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.definition import GROUP, MIRROR, TAG_SET
from registry_sync.fleet.inheritance import TagRuleLevels, merged, tag_levels, tag_options
from registry_sync.fleet.kinds import TRUE, Reading
from registry_sync.fleet.schedules import schedule_document
from registry_sync.fleet.variables import Variables
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, Place

#: Keys that are options of the remote under the same name.
_OPTION_KEYS = ("platforms", "include_referrers", "policy", "conn_id", "labels")
#: Keys that are fields of a mirror under other names, or the same.
_FIELD_KEYS = {
    "mode": "mode",
    "replace_upstream": "replaces_upstream",
    "group": "group",
    "batch": "is_batched",
    "enabled": "is_enabled",
    "retries": "retries",
    "pool": "pool",
    "priority": "priority",
    "owner": "owner",
    "description": "description",
    "labels": "labels",
    "freshness": "freshness",
}


@dataclass
class Surroundings:
    """What the mirrors of a file have around them; ``read_file`` gives the text of a file below the fleet's folder.

    ``broken_batches`` are groups that are a batch and cannot be used, so that nobody would sync their mirrors.
    """

    variables: Variables
    defaults: Fields
    groups: Mapping[str, Fields]
    connections: Mapping[str, str]
    read_file: Callable[[str, Place], str]
    broken_batches: set[str] = field(default_factory=set)
    _merged: dict[str | None, Fields] = field(default_factory=dict)

    def is_batch(self, group: str | None) -> bool:
        """Whether one DAG syncs that group."""
        return group is not None and str(self.groups[group].get("batch")) in TRUE

    def inherited(self, group: str | None) -> Fields:
        """The defaults with a group's fields over them."""
        if group not in self._merged:
            below = self.defaults
            self._merged[group] = below if group is None else merged(below, self.groups[group])
        return self._merged[group]


#: Keys of a batch's mirror that its group says, because one DAG syncs them all.
_OF_THE_BATCH = ("schedule", "timezone", "spread", "retries", "pool")


@dataclass(frozen=True)
class ReadMirror:
    """A mirror that was read: its name as far as it is known, and either the ``mirror`` or the ``mistakes`` in it."""

    repository: str | None
    mirror: Mirror | None
    mistakes: tuple[tuple[Place, str], ...] = ()


def read_mirror(fields: Fields, around: Surroundings) -> ReadMirror:
    """Reads the fields of one mirror."""
    reading = Reading(around.variables)
    group = _group(fields, around, reading)
    whole = merged(around.inherited(group), fields)
    whole.pop("batch", None)
    is_batched = around.is_batch(group)
    said = MIRROR.read(whole, fields.place, reading)
    if is_batched:
        said["batch"] = True
        if group in around.broken_batches:
            reading.report(Misread(fields.places["group"], f"the group {group!r} has mistakes, and is a batch"))
    _refuse_misplaced(fields, group if is_batched else None, reading)
    levels = tag_levels(around.defaults, None if group is None else around.groups[group], fields)
    if any(whole.get(key) is not None and key not in said for key in ("source", "remote", "repository")):
        return ReadMirror(_guess(fields), None, tuple(reading.mistakes))
    repository, remote = None, None
    try:
        source = _source(said, fields)
        repository = _repository(said, source, fields)
        tags = _read_tags(levels, reading)
        if source is None:
            _refuse_options(said, fields)
        else:
            remote = _remote_document(_Described(said, repository, *source), tags, around, whole)
    except Misread as misread:
        reading.report(misread)
    except RegistrySyncError as problem:
        reading.report(Misread(_place_of(problem, whole), str(problem)))
    if reading.mistakes or repository is None:
        return ReadMirror(repository or _guess(fields), None, tuple(reading.mistakes))
    return ReadMirror(repository, _mirror(said, repository, remote, fields.place))


def _group(fields: Fields, around: Surroundings, reading: Reading) -> str | None:
    """The group of a mirror; None for none, or for one that does not exist, which is reported."""
    group = fields.get("group")
    if group is None:
        return None
    if isinstance(group, str) and group in around.groups:
        return str(group)
    known = ", ".join(around.groups) or "none"
    reading.report(Misread(fields.places["group"], f"there is no group {str(group)[:60]!r}; there are {known}"))
    return None


def _refuse_misplaced(fields: Fields, batch: str | None, reading: Reading) -> None:
    """Reports keys that belong to a group; ``batch`` is that of a mirror which is synced in one."""
    if "batch" in fields:
        reading.report(Misread(fields.places["batch"], "batch belongs to a group, and not to a mirror"))
    for key in _OF_THE_BATCH if batch is not None else ():
        if key in fields:
            reading.report(Misread(fields.places[key], f"{key} is said by the group {batch!r}, which is a batch"))


def _repository(said: Mapping[str, Any], source: tuple[str, str] | None, fields: Fields) -> str:
    if "repository" in said:
        return str(said["repository"])
    if source is None:
        raise Misread(fields.place, "repository is missing; a mirror of a remote by name needs one")
    return source[1]


def _refuse_options(said: Mapping[str, Any], fields: Fields) -> None:
    """Raises :class:`Misread` for options of a remote that is used as it is; inherited ones do not count."""
    own = [key for key in (*_OPTION_KEYS, "guard", "tags") if key in fields and key != "labels"]
    if own:
        raise Misread(
            fields.places[own[0]],
            f"the remote {said['remote']!r} is used as it is, with its own options; leave out {', '.join(own)}, or "
            "describe the remote here by url and upstream_name",
        )


def read_group(name: str, fields: Fields, around: Surroundings) -> dict[str, Any] | None:
    """The document of a group that is synced as a batch; None for another one, and for a broken one."""
    if not around.is_batch(name):
        return None
    reading = Reading(around.variables)
    said = GROUP.read(around.inherited(name), fields.place, reading)
    if reading.mistakes:
        around.broken_batches.add(name)
        return None
    document: dict[str, Any] = {_FIELD_KEYS[key]: said[key] for key in _OF_A_GROUP if key in said}
    return {**document, "name": name, **_schedule_fields(said, f"group {name}")}


#: Fields that a group's DAG has.
_OF_A_GROUP = ("enabled", "retries", "pool", "priority", "owner", "description", "labels")


def _schedule_fields(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    if "schedule" not in said:
        return {}
    timezone, spread = said.get("timezone", "UTC"), said.get("spread", 0)
    return {"schedule": schedule_document(said["schedule"], timezone, spread, name)}


def _mirror(said: Mapping[str, Any], repository: str, remote: dict[str, Any] | None, place: Place) -> Mirror:
    document: dict[str, Any] = {name: said[key] for key, name in _FIELD_KEYS.items() if key in said}
    if "batch" not in said:
        document |= _schedule_fields(said, repository)
    if "retain" in said:
        document["retention"] = said["retain"]
    if "publish" in said:
        publish = said["publish"]
        publish = {"base_path": publish} if isinstance(publish, str) else publish
        base_path = publish.get("base_path") or repository
        document["publication"] = {"base_path": base_path, "is_private": publish.get("private", True)}
    if "notify" in said:
        document["notifications"] = [
            {"on": [entry["on"]] if isinstance(entry["on"], str) else entry["on"], "conn_id": entry["to"]}
            for entry in said["notify"]
        ]
    name = repository if remote is not None else said["remote"]
    return Mirror.of_document(
        {
            **document,
            "repository": repository,
            "remote_name": name,
            "remote_document": remote,
            "place": f"{place.file}:{place.line}",
        }
    )


# -- where it comes from ----------------------------------------------------------------------------------------------


def _source(said: Mapping[str, Any], fields: Fields) -> tuple[str, str] | None:
    """URL and name of the upstream; None for a remote by name. Raises :class:`Misread`, :class:`RegistrySyncError`."""
    remote = said.get("remote")
    described = remote if isinstance(remote, dict) else {}
    if "source" in said:
        both = [f"remote.{key}" for key in ("url", "upstream_name") if key in described]
        if both or isinstance(remote, str):
            found = " and ".join(both) or "remote"
            raise Misread(
                fields.places.get("source", fields.place), f"source and {found} are given; expected one of them"
            )
        return _parsed_source(said["source"], fields.places["source"])
    if isinstance(remote, str):
        return None
    if "url" not in described or "upstream_name" not in described:
        expected = "source such as docker.io/library/alpine, or remote with url and upstream_name"
        raise Misread(fields.place, f"there is no source; expected {expected}")
    return described["url"], str(RegistryUrl.parse(described["url"]).upstream_name(described["upstream_name"]))


def _parsed_source(source: str, at: Place) -> tuple[str, str]:
    """URL and upstream name of ``docker.io/library/alpine``. Raises :class:`Misread`."""
    scheme, found, rest = source.rpartition("://")
    host, _, path = rest.partition("/")
    name, sign, digest = path.partition("@")
    if sign:
        raise Misread(at, f"source has a digest; expected {host}/{name} alone, and tags: {{digests: [{digest[:80]}]}}")
    before, colon, tag = name.rpartition(":")
    if colon:
        raise Misread(at, f"source has a tag; expected {host}/{before} alone, and tags: {{include: [{tag[:80]!r}]}}")
    if not path or not ("." in host or ":" in host or host == "localhost"):
        raise Misread(at, f"source is {source[:80]!r}; expected the registry first, such as docker.io/library/alpine")
    url = f"{scheme}{found}{host}" if found else host
    try:
        return url, str(RegistryUrl.parse(url).upstream_name(path))
    except RegistrySyncError as problem:
        raise Misread(at, f"source: {problem}") from None


def _guess(fields: Fields) -> str | None:
    """The repository of a mirror that could not be read, as far as its text shows; None when that is no name."""
    text = fields.get("repository")
    source = fields.get("source")
    if text is None and isinstance(source, str):
        text = re.sub(r"[:@].*", "", source.rpartition("://")[2].partition("/")[2])
    try:
        return None if text is None else str(RepositoryName(str(text)))
    except RegistrySyncError:
        return None


# -- the remote -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Described:
    """What a mirror says of its remote; ``upstream`` is the name on the registry at ``url``."""

    said: Mapping[str, Any]
    repository: str
    url: str
    upstream: str

    @property
    def options(self) -> dict[str, Any]:
        """The options of the remote, tags and the connection by host left out."""
        remote = self.said.get("remote") or {}
        described = {name: value for name, value in remote.items() if name not in ("url", "upstream_name")}
        own = {name: self.said[name] for name in _OPTION_KEYS if name in self.said}
        return {**described, **(self.said.get("guard") or {}), **own}


def _remote_document(
    described: _Described, tags: Mapping[str, Any], around: Surroundings, whole: Fields
) -> dict[str, Any]:
    """The remote as a document, checked. Raises :class:`Misread`, :class:`RegistrySyncError`."""
    options = described.options
    certificate = options.get("ssl_ca_certificate")
    if isinstance(certificate, dict):
        options["ssl_ca_certificate"] = certificate = around.read_file(certificate["file"], whole.places["remote"])
    if has_private_key(certificate or ""):
        raise Misread(whole.places["remote"], "remote.ssl_ca_certificate contains a private key; expected certificates")
    conn_id = around.connections.get(RegistryUrl.parse(described.url).netloc)
    if conn_id is not None:
        options.setdefault("conn_id", conn_id)
    options |= tags
    for name in options:
        if name not in OPTIONS:
            raise Misread(whole.place, f"tags: {name} is not supported by this release")
    place = {"name": described.repository, "url": described.url, "upstream_name": described.upstream}
    RemoteSpec.parse(**place, **options)
    return {**place, **options}


def _read_tags(levels: TagRuleLevels, reading: Reading) -> dict[str, Any]:
    """The rules for tags as options of a remote. Mistakes in them are reported."""
    inherited = None if levels.inherited is None else _rules(levels.inherited, levels.inherited.place, reading)
    own = levels.inherited_sets if levels.own is None else levels.own
    if own is None:
        return tag_options(inherited, None)
    if isinstance(own, Entries):
        return tag_options(inherited, [_rules(entry, at, reading) for entry, at in zip(own, own.places, strict=True)])
    return tag_options(inherited, _rules(own, own.place, reading))


def _rules(value: Any, at: Place, reading: Reading) -> dict[str, Any]:
    return TAG_SET.read(value, at, reading)


def _place_of(problem: RegistrySyncError, whole: Fields) -> Place:
    """The line of the key that a message begins with, else the mirror's."""
    first = re.match(r"[a-z_]+", str(problem))
    return whole.places.get(first[0], whole.place) if first else whole.place
