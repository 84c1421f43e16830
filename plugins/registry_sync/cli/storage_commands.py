"""The commands ``db``, ``usage``, ``gc``, ``reclaim`` and ``verify``: migrations, space and integrity."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import datetime, timedelta, timezone
from typing import Any

from registry_sync.cli.command_context import (
    configured_database,
    confirm,
    end_lost,
    print_document,
    print_fields,
    print_rows,
    read_connections,
    usable_database,
)
from registry_sync.db.database import Database
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.storage_reports import (
    Collection,
    DiskUsage,
    FindingKind,
    Repair,
    RepositoryUsage,
    Verification,
)
from registry_sync.errors import DatabaseError, DatabaseOutdated, InvalidReference
from registry_sync.hooks.settings import load_settings
from registry_sync.hooks.stores import open_blobs
from registry_sync.sync.maintenance.collect import collect_orphans, preview_collection, reclaim_blobs, summary
from registry_sync.sync.maintenance.repair import repair_blobs
from registry_sync.sync.maintenance.verify import VerifyOptions, verify_blobs


def upgrade(_args: Namespace) -> None:
    """Creates or migrates the configured metadata database, and upgrades connections. Safe to repeat."""
    from registry_sync.hooks.own_connections import upgrade_connections

    with configured_database() as database:
        database.upgrade()
        print(f"{database.location} is at schema {database.revision()}")
        try:
            for change in upgrade_connections(database):
                print(change)
        except DatabaseError as problem:
            print(f"Connections were not checked: {problem}", file=sys.stderr)  # Airflow may not be set up yet


def check(args: Namespace) -> None:
    """Checks whether the configured metadata database can be used; ends with status 1 when not."""
    with configured_database() as database:
        try:
            database.check()
            problem = None
        except DatabaseOutdated as outdated:
            problem = str(outdated)
        state = {
            "location": database.location,
            "schema": database.revision(),
            "needed_schema": database.needed_revision,
            "is_usable": problem is None,
        }
        print_fields(state, args.output)
    if problem is not None:
        sys.exit(problem)


def downgrade(args: Namespace) -> None:
    """Migrates the configured metadata database back, after confirmation; data beyond the older schema is lost."""
    with configured_database() as database:
        confirm(args, f"Migrate {database.location} back to {args.to_revision}? Records may be lost.")
        database.downgrade(args.to_revision)
        print(f"{database.location} is at schema {database.revision() or 'none'}")


def usage(args: Namespace) -> None:
    """Shows the space used by all content, and by each repository."""
    with usable_database() as database:
        report = database.disk_usage.report()
    repositories = [_repository_row(each) for each in report.repositories]
    if args.output in ("json", "yaml"):
        print_document({"total": _total(report), "repositories": repositories}, args.output)
        return
    print_rows(repositories, args.output)
    print_fields(_total(report), args.output)


def collect(args: Namespace) -> None:
    """Deletes content that no version and no sync has referenced for the grace period, after confirmation."""
    settings = load_settings()
    grace = settings.orphan_grace if args.grace_hours is None else timedelta(hours=args.grace_hours)
    with usable_database() as database:
        store = open_blobs(settings)
        if args.dry_run or not args.yes:
            preview = preview_collection(database, store, grace=grace, clock=_now, report=_ignore)
            if args.dry_run:
                _print_collection(preview, args.output)
                return
            confirm(args, f"It {summary(preview)}. Continue?")
        end_lost(database)
        collection = collect_orphans(database, store, grace=grace, clock=_now, report=say)
    _print_collection(collection, args.output)


def reclaim(args: Namespace) -> None:
    """Deletes bytes that only these repositories reference, after confirmation; their versions stay."""
    with usable_database() as database:
        repository_ids = [database.repositories.by_name(name).id for name in args.names]
        kept = [_kept(database, text) for text in args.keep or ()]
        store = open_blobs()
        if args.dry_run or not args.yes:
            amount = reclaim_blobs(database, store, repository_ids, kept=kept, is_dry_run=True, report=_ignore)
            if not args.dry_run:
                size = format_bytes(amount.size_bytes)
                confirm(args, f"Delete {size} of {format_count(amount.count, 'blob')} from the blob store?")
        if not args.dry_run:
            amount = reclaim_blobs(database, store, repository_ids, kept=kept, report=say)
    print_fields({"is_dry_run": args.dry_run, "blobs": amount.count, "freed_bytes": amount.size_bytes}, args.output)


def say(line: str) -> None:
    """Prints progress to standard error, apart from the output for programs."""
    print(line, file=sys.stderr)


def _ignore(_line: str) -> None:
    pass


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _kept(database: Database, text: str) -> tuple[str, int]:
    """The version of ``name:number``, or of ``name`` for the latest. Raises :class:`InvalidReference`."""
    name, colon, number = text.rpartition(":")
    if not colon:
        name, number = text, ""
    repository = database.repositories.by_name(name)
    if not colon and repository.latest_number is not None:
        return repository.id, repository.latest_number
    if not number.isascii() or not number.isdigit():
        raise InvalidReference(
            f"{text[:80]!r} does not name a version to keep: use NAME:NUMBER, or NAME for its latest"
        )
    return repository.id, database.versions.get(repository.id, int(number[:10])).number


def _repository_row(usage: RepositoryUsage) -> dict[str, Any]:
    return {
        "repository": usage.name,
        "versions": usage.version_count,
        "manifests": usage.manifests.count,
        "blobs": usage.blobs.count,
        "stored_bytes": usage.blobs.size_bytes,
        "own_bytes": usage.own_blobs.size_bytes,
        "missing_blobs": usage.missing.count,
        "missing_bytes": usage.missing.size_bytes,
        "broken_blobs": usage.broken.count,
    }


def _total(report: DiskUsage) -> dict[str, Any]:
    return {
        "blobs": report.stored.count,
        "stored_bytes": report.stored.size_bytes,
        "manifests": report.manifests.count,
        "manifest_bytes": report.manifests.size_bytes,
        "saved_bytes": report.saved_bytes,
        "orphaned_manifests": report.orphaned_manifests.count,
        "orphaned_blobs": report.orphaned_blobs.count,
        "orphaned_bytes": report.orphaned_blobs.size_bytes,
        "missing_blobs": report.missing.count,
        "missing_bytes": report.missing.size_bytes,
        "broken_blobs": report.broken.count,
        "broken_bytes": report.broken.size_bytes,
    }


def _print_collection(collection: Collection, output: str) -> None:
    print_fields(
        {
            "is_dry_run": collection.is_dry_run,
            "manifests": collection.manifests.count,
            "blobs": collection.blobs.count,
            "untracked_blobs": collection.untracked.count,
            "freed_bytes": collection.freed_bytes,
            "waiting_manifests": collection.waiting_manifests.count,
            "waiting_blobs": collection.waiting_blobs.count,
            "waiting_bytes": collection.waiting_blobs.size_bytes,
            "released_runs": collection.released_runs,
        },
        output,
    )


_MIB = 1024 * 1024


def verify(args: Namespace) -> None:
    """Verifies blobs, and repairs them with ``--repair``; ends with status 1 when blobs stay lost or unreadable."""
    from registry_sync.hooks.clients import open_client

    rate = None if args.mib_per_second is None else args.mib_per_second * _MIB
    repair: Repair | None = None
    with usable_database() as database:
        options = VerifyOptions(args.share, rate).checked()
        store = open_blobs()
        found = verify_blobs(database, store, options, clock=_verify_now, report=say)
        # Blobs that were recorded as missing before losses had a record of their own are still missing.
        lost = sorted({*found.lost, *database.blob_checks.lacking()}) if args.repair else []
        if lost:
            read_connections()
            repair = repair_blobs(database, store, open_client, lost, clock=_verify_now, report=say)
    _print(found, repair, args.output)
    left = _left(found, repair)
    if left:
        sys.exit(f"{format_count(left, 'blob')} cannot be served")


def _left(found: Verification, repair: Repair | None) -> int:
    """The number of blobs whose bytes are lost, or could not be read, after the repair."""
    lost = len(found.lost) if repair is None else len(repair.failures)
    return lost + found.counts.get(FindingKind.UNREADABLE, 0)


def _print(found: Verification, repair: Repair | None, output: str) -> None:
    fields = {
        "verified_blobs": found.verified.count,
        "verified_bytes": found.verified.size_bytes,
        **{kind.value: found.counts.get(kind, 0) for kind in FindingKind},
        "repaired_blobs": None if repair is None else repair.fetched.count + repair.found_count,
        "repaired_bytes": None if repair is None else repair.fetched.size_bytes,
    }
    failures = [] if repair is None else [{"digest": digest, "why": why} for digest, why in repair.failures.items()]
    findings = [{"finding": finding.kind, "name": finding.name, "detail": finding.detail} for finding in found.findings]
    if output in ("json", "yaml"):
        print_document({**fields, "findings": findings, "failures": failures}, output)
        return
    print_fields(fields, output)
    for rows in (findings, failures):
        if rows and output == "plain":  # a table's reader has seen them as progress
            print_rows(rows, output)


def _verify_now() -> datetime:
    return datetime.now(timezone.utc)
