"""The command ``fleet status``: the last result of each mirror, or those of one DAG run."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.command_context import every, print_rows, usable_database
from registry_sync.cli.run_progress import say
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult, counts_text
from registry_sync.domain.records import PageRequest


def status(args: Namespace) -> None:
    """Lists results, and says how many mirrors ended in which way."""
    outcomes = [outcome for outcome in MirrorOutcome if not outcome.is_success] if args.failed else None
    with usable_database() as database:
        page = partial(database.mirror_results.page, run_id=args.run_id, dag_id=args.dag_id)
        results = list(every(partial(page, outcomes=outcomes), ordering="repository"))
        is_known = bool(results) or page(PageRequest(limit=1)).total_count > 0
    say(counts_text(results) if results else _nothing(args, is_known=is_known))
    print_rows([_row(result) for result in results], args.output)


def _nothing(args: Namespace, *, is_known: bool) -> str:
    """Why no result is listed: ``is_known`` is whether there are any in that DAG run."""
    named = {"DAG run": args.run_id, "DAG": args.dag_id}
    where = " of ".join(f"{kind} {name!r}" for kind, name in named.items() if name)
    return f"no mirror {'failed' if is_known else 'has been synced'}{where and f' in {where}'}"


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
