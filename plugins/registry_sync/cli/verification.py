"""``verify``: stored blobs held against the database and their digests, and repaired from their remotes."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from datetime import datetime, timezone

from registry_sync.cli.printing import print_document, print_fields, print_rows
from registry_sync.cli.running import usable_database
from registry_sync.cli.space import say
from registry_sync.domain.quantities import format_count
from registry_sync.domain.space import FindingKind, Repair, Verification
from registry_sync.hooks.clients import open_client
from registry_sync.hooks.stores import open_blobs
from registry_sync.sync.repair import repair_blobs
from registry_sync.sync.verify import VerifyOptions, verify_blobs

_MIB = 1024 * 1024


def verify(args: Namespace) -> None:
    """Verifies, and repairs with ``--repair``; ends with status 1 when something is wrong and stays so."""
    rate = None if args.mib_per_second is None else args.mib_per_second * _MIB
    repair: Repair | None = None
    with usable_database() as database:
        options = VerifyOptions(args.share, rate).checked()
        store = open_blobs()
        found = verify_blobs(database, store, options, clock=_now, tell=say)
        # What was noted as missing before losses were remembered is lacking still.
        lost = sorted({*found.lost, *database.blob_checks.lacking()}) if args.repair else []
        if lost:
            # Connections of Airflow's own database are looked up only by a process that says it may.
            os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
            repair = repair_blobs(database, store, open_client, lost, clock=_now, tell=say)
    _print(found, repair, args.output)
    left = _left(found, repair)
    if left:
        sys.exit(f"{format_count(left, 'blob')} cannot be served as things are")


def _left(found: Verification, repair: Repair | None) -> int:
    """Blobs whose bytes are lost, or could not be read, after the repair."""
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
        if rows and output == "plain":  # people have seen them come
            print_rows(rows, output)


def _now() -> datetime:
    return datetime.now(timezone.utc)
