"""``version``: the versions of a repository listed, shown and described."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.printing import print_document, print_fields, print_rows
from registry_sync.cli.running import every, usable_database
from registry_sync.db.database import Database
from registry_sync.domain.content_summary import ContentSummary
from registry_sync.domain.records import Annotation, Repository, RepositoryVersion
from registry_sync.errors import RecordNotFound

KINDS = ("docker.tag", "docker.manifest", "docker.blob")


def list_all(args: Namespace) -> None:
    """Every version of a repository, the newest first."""
    with usable_database() as database:
        repository = database.repositories.by_name(args.name)
        rows = [row(version) for version in every(partial(database.versions.page, repository.id), ordering="-number")]
    print_rows(rows, args.output)


def show(args: Namespace) -> None:
    """What a version holds, added and removed, who made it, the tags that it holds back, and what its indexes lack."""
    with usable_database() as database:
        _, version = find(database, args.name, args.number)
        run = database.provenance.version(version.repository_id, version.number).run
    made = {
        "dag_run": None if run is None else run.key.run_id,
        "triggered_by": None if run is None else run.triggered_by,
        "removals_approved_by": None if run is None else run.removals_approved_by,
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
    print_rows(summary_rows(version.summary), args.output)
    if run is not None:
        print_rows([made], args.output)
    for found in (holds, gaps):
        if found:
            print_rows(found, args.output)
    if version.referrers_problem is not None:
        print_rows([{"referrers_problem": version.referrers_problem}], args.output)


def describe(args: Namespace) -> None:
    """Says something of a version; what it holds never changes."""
    with usable_database() as database:
        _, version = find(database, args.name, args.number)
        described = database.versions.annotate(version.repository_id, version.number, partial(_changed, args))
    print_fields({**row(described), "labels": dict(described.labels)}, args.output)


def _changed(args: Namespace, said: Annotation) -> Annotation:
    """An empty description or label removes it."""
    labels = {**said.labels, **dict(args.label or ())}
    description = said.description if args.description is None else args.description or None
    return Annotation(description, {name: value for name, value in labels.items() if value})


def number_or_latest(repository: Repository, number: int | None) -> int:
    """The number asked for, else the latest version's. Raises :class:`RecordNotFound` before the first."""
    wanted = repository.latest_number if number is None else number
    if wanted is None:
        raise RecordNotFound(f"repository {repository.name!r} has no version yet")
    return wanted


def find(database: Database, name: str, number: int | None) -> tuple[Repository, RepositoryVersion]:
    """The repository of that name and its version, the latest for None. Raises :class:`RecordNotFound`."""
    repository = database.repositories.by_name(name)
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
        "base_number": version.base_number,
        "created_at": version.created_at,
        "tags": present.get("docker.tag", 0),
        "manifests": present.get("docker.manifest", 0),
        "blobs": present.get("docker.blob", 0),
        "held_tags": len(version.holds),
        "is_complete": version.is_complete,
        "origin": version.origin.kind,
        "created_by": version.origin.created_by,
        "description": version.description,
    }


def summary_rows(summary: ContentSummary) -> list[dict[str, Any]]:
    """A row for each type of content: how many were added, are present, were removed."""
    counts = summary.counts()
    return [{"content": kind, **{part: counts[part].get(kind, 0) for part in counts}} for kind in KINDS]
