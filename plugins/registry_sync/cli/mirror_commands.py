"""The command ``fleet status``: the last result of each mirror, or those of one DAG run."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.command_context import every, print_rows, usable_database
from registry_sync.cli.run_progress import say
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult, counts_text


def status(args: Namespace) -> None:
    """Lists results, and says how many mirrors ended in which way."""
    outcomes = [outcome for outcome in MirrorOutcome if not outcome.is_success] if args.failed else None
    with usable_database() as database:
        page = partial(database.mirror_results.page, outcomes=outcomes, run_id=args.run_id, dag_id=args.dag_id)
        results = list(every(page, ordering="repository"))
    say(counts_text(results) if results else "no mirror has been synced")
    print_rows([_row(result) for result in results], args.output)


def _row(result: MirrorResult) -> dict[str, Any]:
    return {
        "repository": result.repository,
        "outcome": result.outcome.value,
        "version": result.version_number,
        "seconds": round(result.seconds, 1),
        "requests": result.request_count,
        "received_bytes": result.received_bytes,
        "held_tags": result.held_count or None,
        "finished_at": result.finished_at,
        "error": result.error,
        "handed_over_to": result.handed_over_to,
        "dag_id": result.dag_id,
        "run_id": result.run_id,
    }
