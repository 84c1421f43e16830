"""``run``: sync runs listed."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.printing import print_rows
from registry_sync.cli.running import every, usable_database
from registry_sync.domain.runs import RunState, SyncRun


def list_all(args: Namespace) -> None:
    """Sync runs, the newest first, of every repository or of one."""
    with usable_database() as database:
        repository_id = None if args.name is None else database.repositories.by_name(args.name).id
        states = None if args.state is None else [RunState(args.state)]
        page = partial(database.runs.page, repository_id=repository_id, states=states)
        names = {repository.id: repository.name for repository in every(database.repositories.page)}
        rows = [_row(run, names.get(run.repository_id)) for run in every(page, ordering="-started_at")]
    print_rows(rows, args.output)


def _row(run: SyncRun, repository: str | None) -> dict[str, Any]:
    return {
        "run_id": run.key.run_id,
        "repository": repository,
        "state": run.state,
        "version": run.version_number,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "received_bytes": run.usage.received_bytes,
        "held_tags": run.counts.held_tag_count,
        "error": run.error,
    }
