"""``run``: sync runs listed, and the removals of a stopped one approved."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.printing import print_rows
from registry_sync.cli.running import confirm, end_lost, every, usable_database
from registry_sync.domain.quantities import format_count
from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.hooks.dag_runs import continue_run
from registry_sync.hooks.settings import load_settings


def list_all(args: Namespace) -> None:
    """Sync runs, the newest first, of every repository or of one."""
    with usable_database() as database:
        end_lost(database)
        repository_id = None if args.name is None else database.repositories.by_name(args.name).id
        states = None if args.state is None else [args.state]
        page = partial(database.runs.page, repository_id=repository_id, states=states)
        names = {repository.id: repository.name for repository in every(database.repositories.page)}
        rows = [_row(run, names.get(run.repository_id)) for run in every(page, ordering="-started_at")]
    print_rows(rows, args.output)


def approve(args: Namespace) -> None:
    """Lets a run remove more tags than its remote allows, and clears what failed of it so that it goes on."""
    with usable_database() as database:
        key = RunKey(args.dag_id or load_settings().sync_dag_id, args.run_id, args.task or "")
        run = database.runs.by_key(key)
        repository = database.repositories.get(run.repository_id)
        if run.error:
            print(run.error, file=sys.stderr)
        if run.refused_removals is not None:  # else there is nothing to ask about, which the approval says
            confirm(args, f"Let {key.run_id} remove these tags from {repository.name}?")
        database.runs.approve_removals(run.id, getpass.getuser(), seen=run.refused_removals)
        cleared = _go_on(key)
    went_on = "no task of it has failed"
    if cleared:
        went_on = f"cleared {format_count(cleared, 'failed task')}, and the run goes on once a scheduler runs"
    print(f"the removals of {key.run_id} are approved; {went_on}")


def _go_on(key: RunKey) -> int:
    """Clears what failed of the run; ends the command with what to do where that cannot be done here."""
    try:
        return continue_run(key.dag_id, key.run_id)
    except RegistrySyncError:
        raise
    except Exception as problem:  # noqa: BLE001  whatever keeps this machine from Airflow's metadata database
        sys.exit(
            f"the removals of {key.run_id} are approved, and its failed tasks could not be cleared from here "
            f"({type(problem).__name__}: {problem}); clear the task commit_version of the run in Airflow"
        )


def _row(run: SyncRun, repository: str | None) -> dict[str, Any]:
    return {
        "run_id": run.key.run_id,
        "dag_id": run.key.dag_id,
        "repository": repository,
        "state": run.state,
        "version": run.version_number,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "received_bytes": run.usage.received_bytes,
        "held_tags": run.counts.held_tag_count,
        "triggered_by": run.triggered_by,
        "removals_approved_by": run.removals_approved_by,
        "error": run.error,
    }
