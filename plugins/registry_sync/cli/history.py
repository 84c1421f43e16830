"""``version``: versions compared, and made or removed: rolled back to, promoted, deleted."""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from registry_sync.cli.printing import print_document, print_rows
from registry_sync.cli.running import confirm, usable_database
from registry_sync.cli.versions import find, row
from registry_sync.db.database import Database
from registry_sync.domain.history import (
    CopyRequest,
    DerivedVersion,
    TagChange,
    UnitChange,
    UnitDifference,
    VersionDifference,
)
from registry_sync.domain.pages import PageRequest
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.tag_filter import TagFilter

#: Changes that a table shows of each kind; JSON and YAML have all.
SHOWN_CHANGES = 50
_PAGE = 10_000


def diff(args: Namespace) -> None:
    """What differs between a version and another one: tags by name, manifests and blobs by digest and bytes."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        base = repository if args.base_repository is None else database.repositories.by_name(args.base_repository)
        base_number = args.base
        if base_number is None:
            is_own = base.id == repository.id
            base_number = (version.base_number if is_own else base.latest_number) or 0
        parts = _every_part(database, (repository.id, version.number), (base.id, base_number))
    if args.output in ("json", "yaml"):
        print_document(_document(parts), args.output)
        return
    print_rows(_amount_rows(parts[0]), args.output)
    tags = [_tag_row(changed) for part in parts for changed in part.tags.page.items]
    if tags:
        print_rows(tags if args.output == "plain" else tags[:SHOWN_CHANGES], args.output)
    if args.output == "table" and len(tags) > SHOWN_CHANGES:
        print(f"and {format_count(len(tags) - SHOWN_CHANGES, 'more tag')}; --output plain or json has all")


def roll_back(args: Namespace) -> None:
    """Makes a new version that holds what an older one held."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        made = database.versions.roll_back(
            repository.id, version.number, by=getpass.getuser(), description=args.description
        )
    _tell(made, repository, f"version {version.number} is what the latest holds", args.output)


def promote(args: Namespace) -> None:
    """Copies tags of a version into another repository, with all that is below them."""
    mode = SyncMode.MIRROR if args.mirror else SyncMode.ADDITIVE
    with usable_database() as database:
        source, version = find(database, args.source, args.number)
        target = database.repositories.by_name(args.target)
        if args.mirror:
            confirm(args, f"Remove from {target.name} every tag that is not promoted?")
        request = CopyRequest(source.id, version.number, TagFilter.parse(args.tag, args.exclude_tag), mode)
        made = database.versions.copy(target.id, request, by=getpass.getuser(), description=args.description)
    _tell(made, target, "it has these tags already", args.output)


def delete(args: Namespace) -> None:
    """Removes a version; what others hold stays."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        confirm(args, f"Delete version {version.number} of {repository.name}?")
        database.versions.delete(repository.id, version.number)
    print(f"version {version.number} of {repository.name} is deleted")


def _tell(made: DerivedVersion, repository: Repository, unchanged: str, output: str) -> None:
    document = {
        "repository": repository.name,
        "version": None if made.version is None else row(made.version),
        "missing_blobs": made.missing_blob_count,
        "missing_blob_bytes": made.missing_blob_bytes,
    }
    if output in ("json", "yaml"):
        print_document(document, output)
        return
    if made.version is None:
        print(f"{repository.name}: no version was made, {unchanged}")
    else:
        print_rows([row(made.version)], output)
    if made.missing_blob_count:
        print(
            f"{format_count(made.missing_blob_count, 'blob')} ({format_bytes(made.missing_blob_bytes)}) are not in the "
            "blob store; the next immediate sync that has these tags fetches them"
        )


def _every_part(database: Database, version: tuple[str, int], base: tuple[str, int]) -> list[VersionDifference]:
    """The whole difference, in parts of bounded size; counts are those of all in each."""
    parts: list[VersionDifference] = []
    offset, longest = 0, 1
    while offset < longest:
        part = database.versions.difference(
            *version, base[1], base_repository_id=base[0], request=PageRequest(offset, _PAGE)
        )
        parts.append(part)
        longest = max(each.page.total_count for each in (part.tags, part.manifests, part.blobs))
        offset += _PAGE
    return parts


def _amount_rows(difference: VersionDifference) -> list[dict[str, Any]]:
    tags = difference.tags
    rows: list[dict[str, Any]] = [
        {
            "content": "docker.tag",
            "added": tags.added_count,
            "removed": tags.removed_count,
            "moved": tags.moved_count,
            "shared": tags.shared_count,
            "added_bytes": None,
            "removed_bytes": None,
        }
    ]
    for kind, found in (("docker.manifest", difference.manifests), ("docker.blob", difference.blobs)):
        rows.append({"content": kind, **_amounts(found)})
    return rows


def _amounts(found: UnitDifference) -> dict[str, Any]:
    return {
        "added": found.count.added,
        "removed": found.count.removed,
        "moved": None,
        "shared": found.count.shared,
        "added_bytes": found.size_bytes.added,
        "removed_bytes": found.size_bytes.removed,
    }


def _tag_row(changed: TagChange) -> dict[str, Any]:
    return {"change": changed.change, "tag": changed.name, "before": changed.before, "after": changed.after}


def _unit_rows(changes: Sequence[UnitChange]) -> list[dict[str, Any]]:
    return [
        {
            "change": unit.change,
            "digest": unit.digest,
            "media_type": unit.media_type,
            "size_bytes": unit.size_bytes,
        }
        for unit in changes
    ]


def _document(parts: Sequence[VersionDifference]) -> dict[str, Any]:
    first = parts[0]
    return {
        "number": first.number,
        "base_number": first.base_number,
        "is_empty": first.is_empty,
        "amounts": _amount_rows(first),
        "tags": [_tag_row(changed) for part in parts for changed in part.tags.page.items],
        "manifests": [row for part in parts for row in _unit_rows(part.manifests.page.items)],
        "blobs": [row for part in parts for row in _unit_rows(part.blobs.page.items)],
    }
