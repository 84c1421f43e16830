"""Files of oc-mirror (``ImageSetConfiguration``): the images that they name, and what needs a resolver and is left out.

Operators, releases and charts of repositories are resolved by oc-mirror to images; their list can be imported when it
stands in ``additionalImages``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry_sync.domain.tag_rules import RegexSet
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.imports.foreign_references import parse_image
from registry_sync.fleet.imports.foreign_tag_rules import whole_expression
from registry_sync.fleet.imports.imported_fleet import FleetImport, ImportedMirror
from registry_sync.fleet.yaml_text import Entries, Fields, Place, Scalar

KIND = "ImageSetConfiguration"
_TOP = ("kind", "apiVersion", "mirror", "archiveSize", "storageConfig", "delete")
_MIRROR = ("additionalImages", "blockedImages", "helm", "operators", "platform", "samples")
_IMAGE = ("name", "targetRepo", "targetTag", "platforms")
_BLOCKED = ("name",)
_HELM = ("repositories", "local")
_OCI = "oci://"
#: What is resolved to images, and where it stands.
_RESOLVED = {
    "operators": "operators of a catalog",
    "platform": "releases of a platform",
    "samples": "samples",
}


def import_oc_mirror(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of the images and charts that the file names."""
    into.warn_unknown(top, _TOP, "oc-mirror's file")
    for key in ("archiveSize", "delete"):
        if top.get(key) is not None:
            into.warn(top.places[key], f"{key} has no counterpart: nothing is exported or deleted by a file here")
    mirror = into.fields(top.get("mirror"), top.places.get("mirror", top.place), "additionalImages")
    mirror = into.spelled(mirror, _MIRROR, "mirror in oc-mirror's file")
    is_first_version = "/v1alpha" in str(top.get("apiVersion") or "")
    blocked = _Blocked(mirror, into)
    at = mirror.places.get("additionalImages", mirror.place)
    for image in into.each_fields(mirror.get("additionalImages"), at, "an image with a name"):
        read = into.spelled(image, _IMAGE, "an image in oc-mirror's file")
        _read_image(read, blocked, into, untagged="latest" if is_first_version else None)
    blocked.note_unused(into)
    for key, what in _RESOLVED.items():
        if mirror.get(key) not in (None, []):
            into.warn(mirror.places[key], _left_out(what))
    _read_helm(into.fields(mirror.get("helm"), mirror.places.get("helm", mirror.place), "repositories"), into)


def _left_out(what: str) -> str:
    return f"{what} are left out: oc-mirror resolves them to images; list these in additionalImages and import again"


class _Blocked:
    """The images that are not mirrored, by their text or an expression, searched for in source and destination."""

    def __init__(self, mirror: Fields, into: FleetImport) -> None:
        self._texts: list[tuple[str, RegexSet | None]] = []
        self._unused: dict[str, Place] = {}
        at = mirror.places.get("blockedImages", mirror.place)
        for entry in into.each_fields(mirror.get("blockedImages"), at, "an image with a name"):
            read = into.spelled(entry, _BLOCKED, "a blocked image in oc-mirror's file")
            name = read.get("name")
            if not isinstance(name, Scalar):
                into.warn(entry.place, "a blocked image has no name; it is left out")
                continue
            self._unused[str(name)] = read.places["name"]
            try:
                self._texts.append((str(name), RegexSet((whole_expression(name),))))
            except ConfigurationError as problem:
                into.warn(read.places["name"], f"{problem}; it blocks that text alone")
                self._texts.append((str(name), None))

    def by(self, *references: str) -> str | None:
        """The entry that blocks one of ``references``; None when none does."""
        for text, expressions in self._texts:
            if text in references or (expressions is not None and any(map(expressions.any, references))):
                self._unused.pop(text, None)
                return text
        return None

    def note_unused(self, into: FleetImport) -> None:
        """Notes the entries that blocked nothing: they may be about images that are not resolved here."""
        for text, at in self._unused.items():
            into.note(at, f"{text[:80]!r} blocks none of the images that the file names, and is left out")


def _read_image(image: Fields, blocked: _Blocked, into: FleetImport, untagged: str | None) -> None:
    """Adds the mirror of an image; ``untagged`` is the tag of one that has none, None where it needs one."""
    name = image.get("name")
    if not isinstance(name, Scalar):
        into.warn(image.place, "the image has no name; it is left out")
        return
    at = image.places["name"]
    if name.startswith(("oci:", "file:")):
        into.warn(at, f"{str(name)[:80]!r} is a folder and no registry; it is left out")
        return
    found = parse_image(name)
    if not found.tag and not found.digest:
        found = found._replace(tag=untagged)
    target = str(image.get("targetRepo") or found.path).strip("/")
    tag = str(image.get("targetTag") or found.tag or "")
    entry = blocked.by(str(name), f"{target}:{tag}")
    if entry is not None:
        into.warn(at, f"{str(name)[:200]} is left out, because blockedImages has {entry[:80]!r}")
        return
    if not found.tag and not found.digest:
        into.warn(at, f"{str(name)[:200]!r} has neither a tag nor a digest, which oc-mirror requires; it is left out")
        return
    if image.get("targetTag") is not None and not found.digest and tag != found.tag:
        into.warn(image.places["targetTag"], f"targetTag: {found.tag} becomes {tag} there; here tags keep their names")
    into.add(ImportedMirror(target, found.source, image.place, [_rules(found.tag, found.digest, tag)], _fields(image)))


def _rules(tag: str | None, digest: str | None, name: str) -> Mapping[str, Any]:
    """The set of rules of one image; a digest has the name of its tag, where it has one."""
    if digest is None:
        return {"include": [tag]}
    return {"digests": [{"digest": digest, "tag": name} if name else digest]}


def _fields(image: Fields) -> dict[str, Any]:
    listed = image.get("platforms")
    if not isinstance(listed, Entries):
        return {}
    platforms = [
        "/".join(str(entry[key]) for key in ("os", "architecture", "variant") if entry.get(key))
        for entry in listed
        if isinstance(entry, Fields)
    ]
    return {"platforms": platforms} if platforms else {}


def _read_helm(helm: Fields, into: FleetImport) -> None:
    """Charts in registries are mirrors; those of repositories have to be resolved."""
    helm = into.spelled(helm, _HELM, "helm in oc-mirror's file")
    if helm.get("local") not in (None, []):
        into.warn(helm.places["local"], _left_out("local charts"))
    for repository in into.each_fields(helm.get("repositories"), helm.places.get("repositories", helm.place), "a URL"):
        url = str(repository.get("url") or "")
        if not url.startswith(_OCI):
            into.warn(repository.place, _left_out(f"charts of {url[:80] or 'a repository'}"))
            continue
        at = repository.places.get("charts", repository.place)
        for chart in into.each_fields(repository.get("charts"), at, "a name and a version"):
            name, version = chart.get("name"), chart.get("version")
            if not isinstance(name, Scalar) or not isinstance(version, Scalar):
                into.warn(chart.place, "the chart has no name or no version; it is left out")
                continue
            found = parse_image(f"{url.removeprefix(_OCI).rstrip('/')}/{name}")
            # Tags have no +, which Helm writes as _.
            rules = {"include": [version.replace("+", "_")]}
            into.add(ImportedMirror(found.path, found.source, chart.place, [rules]))
            into.warn(chart.place, "of a chart the chart alone is mirrored; list its images in additionalImages")
