"""Files of ``skopeo sync --src yaml``: registries, or registries with a path, with images, expressions and ranges.

Where the images go stands in skopeo's command line, so that repositories are named here after where they come from
(:class:`RepositoryNames`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.imports.foreign_references import official_path
from registry_sync.fleet.imports.foreign_tag_rules import expression_rule, masterminds_sets, read_ranges
from registry_sync.fleet.imports.imported_fleet import EVERY_TAG, FleetImport, ImportedMirror, literal_tag
from registry_sync.fleet.yaml_text import Fields, Place, Scalar

_IMAGES, _REGEX, _SEMVER = "images", "images-by-tag-regex", "images-by-semver"
_KEYS = (_IMAGES, _REGEX, _SEMVER, "credentials", "tls-verify", "cert-dir")
_CREDENTIALS = ("username", "password", "identitytoken")


class RepositoryNames(str, Enum):
    """What repositories are named after: the source's path, its path behind the host, or the last part of it."""

    PATH = "path"
    SCOPED = "scoped"
    LAST = "last"

    def of(self, host: str, path: str) -> str:
        """The name of the repository for a source."""
        if self is RepositoryNames.SCOPED:
            return f"{host.replace(':', '-')}/{path}"
        return path.rpartition("/")[2] if self is RepositoryNames.LAST else path


@dataclass(frozen=True)
class _Section:
    """A registry of the file, its host and the path in front of its repositories, with fields of all its mirrors."""

    host: str
    path: str
    fields: Mapping[str, Any]


def import_skopeo(top: Fields, into: FleetImport, names: RepositoryNames) -> None:
    """Adds the mirrors of the file."""
    whole = Place(into.file, 0)
    into.warn(whole, "all platforms are kept; skopeo copies one platform of its host unless it is run with --all")
    if names is RepositoryNames.PATH:
        into.note(
            whole,
            "repositories have the names of their sources; skopeo names them by the last part alone (--names last), or "
            "with the host in front when it is run with --scoped (--names scoped)",
        )
    for registry, value in top.items():
        place = top.places[registry]
        fields = into.fields(value, place, "images of a registry")
        into.warn_unknown(fields, _KEYS, "skopeo's file")
        _read_section(registry, fields, into, names)


def _read_section(registry: str, fields: Fields, into: FleetImport, names: RepositoryNames) -> None:
    host, _, path = registry.partition("/")
    section = _Section(host, path, _section_fields(host, fields, into))
    for repository, at, sets in _selections(fields, into):
        name = official_path(host, "/".join(part for part in (path, repository) if part))
        mirror = ImportedMirror(names.of(host, name), f"{host}/{name}", at, sets, dict(section.fields))
        into.add(mirror)


def _section_fields(host: str, fields: Fields, into: FleetImport) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if not into.flag(fields, "tls-verify", True):
        into.warn(
            fields.places["tls-verify"],
            f"{host}: ssl_validation is false, as tls-verify was; skopeo then tries http as well: where the registry "
            "has no TLS, write http:// in front of the source",
        )
        made["remote"] = {"ssl_validation": False}
    if fields.get("cert-dir") is not None:
        into.warn(
            fields.places["cert-dir"],
            f"{host}: name the certificates of {str(fields['cert-dir'])[:200]} in a connection: *.crt as "
            "ca_certificate, *.cert and *.key as client_certificate and client_private_key",
        )
    credentials = fields.get("credentials")
    if credentials is not None:
        at = fields.places["credentials"]
        known = into.fields(credentials, at, "username and password")
        into.warn_unknown(known, _CREDENTIALS, "credentials in skopeo's file")
        user = str(known["username"]) if isinstance(known.get("username"), Scalar) else ""
        secret = "identity_token" if known.get("identitytoken") is not None else "password"
        conn_id = into.need_connection(
            host, at, user, f"login {user or '(none)'!r} and the {secret} of this line, which is not repeated"
        )
        if conn_id is not None:
            made["conn_id"] = conn_id
    return made


def _selections(fields: Fields, into: FleetImport) -> Iterator[tuple[str, Place, list[Mapping[str, Any]]]]:
    """Each repository of a section, its line, and the sets of rules of one of the three keys."""
    readers = {_IMAGES: _literal_sets, _REGEX: _expression_sets, _SEMVER: _range_sets}
    for key, read in readers.items():
        if fields.get(key) is None:
            continue
        repositories = into.fields(fields[key], fields.places[key], f"repositories in {key}")
        for repository, value in repositories.items():
            at = repositories.places[repository]
            sets = read(value, at, into)
            if sets:
                yield repository, at, sets
            else:
                into.warn(at, f"{repository}: nothing of {key} can be read, so that it selects nothing")


def _literal_sets(value: Any, place: Place, into: FleetImport) -> list[Mapping[str, Any]]:
    """Tags and digests; no entry means every tag."""
    entries = into.texts(value, place, "tags and digests")
    if value is None or value == []:
        return [EVERY_TAG]
    found: dict[str, list[Any]] = {}
    for text, at in entries:
        if ":" in text:
            try:
                found.setdefault("digests", []).append(Digest(text))
            except RegistrySyncError as problem:
                into.warn(at, f"{problem}; skopeo skips it, and it is left out")
        elif literal_tag(text) is None:
            into.warn(at, f"{text[:80]!r} is no tag; skopeo skips it, and it is left out")
        else:
            found.setdefault("include", []).append(text)
    return [found] if found else []


def _expression_sets(value: Any, place: Place, into: FleetImport) -> list[Mapping[str, Any]]:
    sets: list[Mapping[str, Any]] = []
    for text, at in into.texts(value, place, "a regular expression"):
        rule, found = expression_rule(text, at, into)
        sets.append({rule: [found]})
    return sets


def _range_sets(value: Any, place: Place, into: FleetImport) -> list[Mapping[str, Any]]:
    ranges = read_ranges(into.texts(value, place, "a version range"), into, masterminds_sets)
    return [one for sets in ranges or () for one in sets]
