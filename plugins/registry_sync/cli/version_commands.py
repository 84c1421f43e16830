"""The command ``version``: list, show, describe, compare, roll back, promote and delete versions."""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

from registry_sync.cli.command_context import (
    confirm,
    every,
    named,
    print_document,
    print_fields,
    print_rows,
    usable_database,
)
from registry_sync.db.database import Database
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.records import (
    Annotation,
    ContentSummary,
    PageRequest,
    Repository,
    RepositoryVersion,
    SyncMode,
)
from registry_sync.domain.references import TagFilter
from registry_sync.domain.version_history import (
    CopyRequest,
    DerivedVersion,
    TagChange,
    UnitChange,
    UnitDifference,
    VersionDifference,
)
from registry_sync.errors import RecordNotFound

KINDS = ("docker.tag", "docker.manifest", "docker.blob")


def list_versions(args: Namespace) -> None:
    """Lists the versions of a repository, the newest first."""
    with usable_database() as database:
        repository = named(database.repositories, args.name)
        rows = [row(version) for version in every(partial(database.versions.page, repository.id), ordering="-number")]
    print_rows(rows, args.output)


def show_version(args: Namespace) -> None:
    """Shows a version: its content and changes, its author, its held tags, and the missing entries of its indexes."""
    with usable_database() as database:
        _, version = find(database, args.name, args.number)
        run = database.provenance.version(version.repository_id, version.number).run
    made = {
        "dag_run": None if run is None else run.key.run_id,
        "triggered_by": None if run is None else run.triggered_by,
        "removals_approved_by": None if run is None else run.removals_approved_by,
        "removals_approved_at": None if run is None else run.removals_approved_at,
    }
    holds = [{"tag": hold.tag, "kept_digest": hold.digest, "reason": hold.reason} for hold in version.holds]
    gaps = [{"index": gap.parent, "missing_manifest": gap.digest} for gap in version.gaps]
    if args.output in ("json", "yaml"):
        document = {
            **row(version),
            **made,
            "content_summary": version.summary.counts(),
            "holds": holds,
            "gaps": gaps,
            "referrers_problem": version.referrers_problem,
        }
        print_document(document, args.output)
        return
    if args.output == "table":
        print_rows([row(version)], args.output)
    print_rows(summary_rows(version.summary), args.output)
    if run is not None:
        print_rows([made], args.output)
    for found in (holds, gaps):
        if found:
            print_rows(found, args.output)
    if version.referrers_problem is not None:
        print_rows([{"referrers_problem": version.referrers_problem}], args.output)


def describe(args: Namespace) -> None:
    """Sets the description and labels of a version; its content never changes."""
    with usable_database() as database:
        _, version = find(database, args.name, args.number)
        described = database.versions.annotate(version.repository_id, version.number, partial(_changed, args))
    print_fields(row(described), args.output)


def _changed(args: Namespace, current: Annotation) -> Annotation:
    """The changed annotation; an empty description or label removes it."""
    labels = {**current.labels, **dict(args.label or ())}
    description = current.description if args.description is None else args.description or None
    return Annotation(description, {name: value for name, value in labels.items() if value})


def number_or_latest(repository: Repository, number: int | None) -> int:
    """The given number, else the latest version's. Raises :class:`RecordNotFound` before the first."""
    wanted = repository.latest_number if number is None else number
    if wanted is None:
        raise RecordNotFound(f"repository {repository.name!r} has no version yet")
    return wanted


def find(database: Database, name: str, number: int | None) -> tuple[Repository, RepositoryVersion]:
    """The repository of that name and its version, the latest for None. Raises :class:`RecordNotFound`."""
    repository = named(database.repositories, name)
    wanted = number_or_latest(repository, number)
    try:
        return repository, database.versions.get(repository.id, wanted)
    except RecordNotFound:
        raise RecordNotFound(f"there is no version {wanted} of repository {name!r}") from None


def row(version: RepositoryVersion) -> dict[str, Any]:
    """A version as a row."""
    present = version.summary.present
    return {
        "number": version.number,
        "created_at": version.created_at,
        "origin": version.origin.kind,
        "created_by": version.origin.created_by,
        "tags": present.get("docker.tag", 0),
        "manifests": present.get("docker.manifest", 0),
        "blobs": present.get("docker.blob", 0),
        "held_tags": len(version.holds),
        "is_complete": version.is_complete,
        "base_number": version.base_number,
        "labels": dict(version.labels),
        "description": version.description,
    }


def summary_rows(summary: ContentSummary) -> list[dict[str, Any]]:
    """A row for each type of content, with its added, present and removed counts."""
    counts = summary.counts()
    return [{"content": kind, **{part: counts[part].get(kind, 0) for part in counts}} for kind in KINDS]


#: The most changes of each kind in a table; JSON and YAML have all.
SHOWN_CHANGES = 50
_PAGE = 10_000


def diff(args: Namespace) -> None:
    """Compares a version with another one: tags by name, manifests and blobs by digest and bytes."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        base = repository if args.base_repository is None else named(database.repositories, args.base_repository)
        base_number = args.base
        if base_number is None:
            is_own = base.id == repository.id
            base_number = (version.base_number if is_own else base.latest_number) or 0
        if base_number:
            find(database, base.name, base_number)
        parts = _every_part(database, (repository.id, version.number), (base.id, base_number))
    _print_difference(parts, args.output)


def diff_any(args: Namespace) -> None:
    """Compares any two versions, ``NAME`` or ``NAME:NUMBER``; one alone with the version before it."""
    with usable_database() as database:
        repository, number = _version_of(database, args.reference)
        _, version = find(database, repository.name, number)
        if args.base is None:
            base, base_number = repository, version.base_number or 0
        elif args.base.isascii() and args.base.isdigit():
            base, base_number = repository, int(args.base[:20])
        else:
            base, number = _version_of(database, args.base)
            base_number = number_or_latest(base, number)
        if base_number:
            find(database, base.name, base_number)
        parts = _every_part(database, (repository.id, version.number), (base.id, base_number))
    _print_difference(parts, args.output)


def _version_of(database: Database, text: str) -> tuple[Repository, int | None]:
    """The repository of ``NAME`` or ``NAME:NUMBER``, and the number, None for the latest."""
    name, colon, number = text.rpartition(":")
    if colon and number.isascii() and number.isdigit():
        return named(database.repositories, name), int(number[:20])
    return named(database.repositories, text), None


def _print_difference(parts: Sequence[VersionDifference], output: str) -> None:
    if output in ("json", "yaml"):
        print_document(_document(parts), output)
        return
    print_rows(_amount_rows(parts[0]), output)
    tags = [_tag_row(changed) for part in parts for changed in part.tags.page.items]
    if tags:
        print_rows(tags if output == "plain" else tags[:SHOWN_CHANGES], output)
    if output == "table" and len(tags) > SHOWN_CHANGES:
        print(f"and {format_count(len(tags) - SHOWN_CHANGES, 'more tag')}; --output plain or json has all")


def roll_back(args: Namespace) -> None:
    """Makes a new version with the content of an older one."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        made = database.versions.roll_back(
            repository.id, version.number, by=getpass.getuser(), description=args.description
        )
        _announce(database, made)
    _report(made, repository, f"the latest has the content of version {version.number}", args.output)


def promote(args: Namespace) -> None:
    """Copies tags of a version into another repository, with all content below them."""
    mode = SyncMode.MIRROR if args.mirror else SyncMode.ADDITIVE
    with usable_database() as database:
        source, version = find(database, args.source, args.number)
        target = named(database.repositories, args.target)
        if args.mirror:
            confirm(args, f"Remove every tag that is not promoted from {target.name}?")
        request = CopyRequest(source.id, version.number, TagFilter.parse(args.tag, args.exclude_tag), mode)
        made = database.versions.copy(target.id, request, by=getpass.getuser(), description=args.description)
        _announce(database, made)
    _report(made, target, "it has these tags already", args.output)


def delete(args: Namespace) -> None:
    """Deletes a version; the content of the others stays."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        confirm(args, f"Delete version {version.number} of {repository.name}?")
        database.versions.delete(repository.id, version.number)
    print(f"version {version.number} of {repository.name} is deleted")


def _announce(database: Database, made: DerivedVersion) -> None:
    from registry_sync.hooks.asset_events import announce_version
    from registry_sync.pulp.version_events import MAX_EVENT_TAGS, version_event

    if made.version is not None:
        announce_version(database, made.version, version_event, max_tags=MAX_EVENT_TAGS)


def _report(made: DerivedVersion, repository: Repository, unchanged: str, output: str) -> None:
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
            "blob store; pulls fetch them while the upstream has them, and the next immediate sync with these tags does"
        )


def _every_part(database: Database, version: tuple[str, int], base: tuple[str, int]) -> list[VersionDifference]:
    """The whole difference in parts of bounded size; each has the counts of all."""
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
