"""Files of image-syncer: a map of sources to targets, alone or as ``images`` beside ``auth``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.imports.foreign_references import ImageReference, parse_image
from registry_sync.fleet.imports.foreign_tag_rules import expression_rule
from registry_sync.fleet.imports.imported_fleet import EVERY_TAG, FleetImport, ImportedMirror, literal_tag
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, Place, Scalar

_AUTH = ("username", "password", "insecure")


def is_image_syncer(top: Fields) -> bool:
    """Whether a file maps images to targets, or has such a map as ``images``."""
    if isinstance(top.get("images"), Fields) and set(top) <= {"images", "auth"}:
        return True
    return bool(top) and all(
        ("/" in key or ":" in key) and (value is None or isinstance(value, Scalar | Entries))
        for key, value in top.items()
    )


def import_image_syncer(top: Fields, into: FleetImport) -> None:
    """Adds the mirrors of the file."""
    insecure: set[str] = set()
    images = top
    if isinstance(top.get("images"), Fields):
        into.warn_unknown(top, ("images", "auth"), "image-syncer's file")
        images = top["images"]
        into.warn_repeated(images)
        insecure = _read_auth(into.fields(top.get("auth"), top.places.get("auth", top.place), "registries"), into)
    into.note(
        top.place,
        "it is synced by hand: image-syncer runs when it is started; write schedule in defaults or in a mirror",
    )
    for source, targets in images.items():
        place = images.places[source]
        try:
            _read_pair(source, targets, place, insecure, into)
        except Misread as misread:
            into.warn(misread.place, f"{misread.message}; the entry is left out")


def _read_auth(auth: Fields, into: FleetImport) -> set[str]:
    """Notes the connections; returns the registries, or registries with a path, that are reached by http."""
    insecure = set()
    for name, value in auth.items():
        at = auth.places[name]
        fields = into.fields(value, at, "username and password")
        into.warn_unknown(fields, _AUTH, "auth of image-syncer")
        host, slash, path = name.partition("/")
        if slash:
            into.warn(
                at, f"the login for {name[:80]} is of one path; a connection is of {host}, name it in the mirrors"
            )
        if into.flag(fields, "insecure", False):
            insecure.add(name)
        if isinstance(fields.get("username"), Scalar):
            user = str(fields["username"])
            into.need_connection(
                host, at, f"{user}/{path}", f"login {user!r} and the password of this entry, which is not repeated"
            )
    return insecure


def _read_pair(source: str, targets: Any, place: Place, insecure: set[str], into: FleetImport) -> None:
    name, sets, tag = _selection(source, place, into)
    image = parse_image(name)
    is_plain = any(image.source == one or image.source.startswith(f"{one}/") for one in insecure)
    url = f"http://{image.source}" if is_plain else image.source
    wanted = [parse_image(text) for text, _ in into.texts(targets, place, "a target")]
    if targets is not None and not wanted:
        raise Misread(place, f"the target of {source[:80]!r} cannot be read")
    for target in wanted or [ImageReference("", image.path, None, None)]:
        into.note_unfilled(place, target.host)
        if target.tag is not None and target.tag != tag:
            into.warn(
                place,
                f"{image.source}: the tag {tag or '(all)'} becomes {target.tag} there; here tags keep their names",
            )
        into.add(ImportedMirror(target.path or image.path, url, place, [dict(one) for one in sets]))


def _selection(source: str, place: Place, into: FleetImport) -> tuple[str, list[Mapping[str, Any]], str | None]:
    """The repository, the sets of rules, and the tag where it is exactly one. Raises :class:`Misread`."""
    name, slash, pattern = source.partition(":/")
    if slash and pattern.endswith("/"):
        rule, found = expression_rule(pattern[:-1], place, into)
        return name, [{rule: [found]}], None
    name, at, digest = source.partition("@")
    if at:
        try:
            return name, [{"digests": [Digest(digest)]}], None
        except RegistrySyncError as problem:
            raise Misread(place, str(problem)) from None
    before, colon, tags = source.rpartition(":")
    if not colon or "/" in tags:
        return source, [EVERY_TAG], None
    names = [tag.strip() for tag in tags.split(",")]
    bad = [tag for tag in names if literal_tag(tag) is None]
    if bad:
        raise Misread(place, f"{bad[0][:80]!r} in {source[:80]!r} is no tag")
    return before, [{"include": names}], names[0] if len(names) == 1 else None
