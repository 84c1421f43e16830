"""The command ``run``: lists and shows syncs, cancels them, and approves what stopped ones would do."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.command_context import (
    confirm,
    end_lost,
    every,
    named,
    print_document,
    print_fields,
    print_rows,
    usable_database,
    without_airflows_log,
)
from registry_sync.cli.run_progress import follow_run, runs_of, say, show_end
from registry_sync.db.database import Database
from registry_sync.domain.quantities import format_count, shortened
from registry_sync.domain.runs import LOCAL_DAG_ID, DagRunEnd, RunKey, SyncRun
from registry_sync.errors import RecordNotFound, RegistrySyncError, SyncError, TooFewTags
from registry_sync.hooks.dag_runs import CANCELED_NOTES, cancel_run, continue_run, run_state
from registry_sync.hooks.settings import load_settings

#: The most characters of a name or an error in the list of runs; errors of ours have shorter names.
_MOST_WIDTH = 40


def list_runs(args: Namespace) -> None:
    """Lists sync runs, the newest first, of every repository or of one."""
    with usable_database() as database:
        end_lost(database)
        repository_id = None if args.name is None else named(database.repositories, args.name).id
        states = None if args.state is None else [args.state]
        page = partial(database.runs.page, repository_id=repository_id, states=states)
        names = {repository.id: repository.name for repository in every(database.repositories.page)}
        rows = [_row(run, names.get(run.repository_id)) for run in every(page, ordering="-started_at")]
    shown = _for_a_terminal(rows) if args.output == "table" else rows
    print_rows(shown, args.output, whole=("repository", "state", "error"))
    if args.output == "table" and any(row["error"] for row in rows):
        say("why a sync has stopped or failed: airflow registry-sync run show RUN_ID")


def show_run(args: Namespace) -> None:
    """Shows the syncs of a run: their progress, their requests and why they failed; ``--follow`` until it has ended."""
    key = _key(args)
    with usable_database() as database:
        if args.follow and key.dag_id != LOCAL_DAG_ID:
            ended = follow_run(database, key.dag_id, key.run_id)
            show_end(database, key.dag_id, key.run_id, ended, args.output)
            return
        end_lost(database)
        runs = runs_of(database, key)
        if not runs:
            print_fields(
                {"run_id": key.run_id, "dag_id": key.dag_id, "state": run_state(*_ids(key)).state}, args.output
            )
            return
        shown = [_fields(database, run) for run in runs]
    if args.output in ("json", "yaml"):
        print_document(shown, args.output)
        return
    for fields in shown:
        print_fields(fields, args.output)


def cancel(args: Namespace) -> None:
    """Cancels a run, after confirmation: its tasks are stopped, and what was downloaded stays."""
    key = _key(args)
    with usable_database() as database:
        runs = runs_of(database, key)
        if key.dag_id == LOCAL_DAG_ID and not runs:
            raise RecordNotFound(f"there is no run {key.run_id!r}; airflow registry-sync run list names them")
        confirm(args, f"Cancel the run {key.run_id}?")
        if key.dag_id != LOCAL_DAG_ID:
            without_airflows_log(lambda: cancel_run(key.dag_id, key.run_id, CANCELED_NOTES[1], by=getpass.getuser()))
        elif all(run.state.is_settled or run.finished_at is not None for run in runs):
            raise SyncError(f"the run {key.run_id!r} has ended: it is {runs[0].state.value}")
        end = DagRunEnd.CANCELED  # recorded by the listener already, unless the database did not respond in time
        database.run_ends.end(key.dag_id, key.run_id, end.state, end.reason)
    print(f"the run {key.run_id} is canceled; what was downloaded stays, and the next sync continues with it")


def approve(args: Namespace) -> None:
    """Approves the removals of a run, and lets its waiting or failed task continue."""
    with usable_database() as database:
        key = RunKey(*_ids(_key(args)), args.task or "")
        run = database.runs.by_key(key)
        repository = database.repositories.get(run.repository_id)
        if run.error:
            print(run.error, file=sys.stderr)
        if run.refused_removals is not None:  # otherwise the approval raises NothingToApprove
            confirm(args, _question(key, run, repository.name))
        database.runs.approve_removals(run.id, getpass.getuser(), seen=run.refused_removals)
        continued = _continue(key, run.id)
    continuation = "no task of it waits or has failed"
    if continued:
        continuation = f"{format_count(continued, 'task')} of it will run again, once a scheduler runs"
    print(f"the removals of {key.run_id} are approved; {continuation}")


def _question(key: RunKey, run: SyncRun, repository: str) -> str:
    is_few = (run.error or "").startswith(TooFewTags.__name__)
    what = f"make a version of {repository} with only these tags" if is_few else f"remove these tags from {repository}"
    return f"Let {key.run_id} {what}?"


def _continue(key: RunKey, sync_run: str) -> int:
    """Continues the run and returns the number of its tasks that run again; ends the command with what to do if not."""
    try:
        return continue_run(key.dag_id, key.run_id, approved=[sync_run], approved_by=getpass.getuser())
    except RegistrySyncError:
        raise
    except Exception as problem:  # noqa: BLE001  any reason why Airflow's metadata database is not reachable
        sys.exit(
            f"the removals of {key.run_id} are approved, and the run could not be continued from here "
            f"({type(problem).__name__}: {problem}); in Airflow, approve it in the required actions of the run, or "
            "clear its failed CommitVersionOperator"
        )


def _key(args: Namespace) -> RunKey:
    """The run that was named; one of ``sync --local`` is known by its id."""
    own = LOCAL_DAG_ID if args.run_id.startswith("local__") else None
    return RunKey(args.dag_id or own or load_settings().sync_dag_id, args.run_id)


def _ids(key: RunKey) -> tuple[str, str]:
    return key.dag_id, key.run_id


def _row(run: SyncRun, repository: str | None) -> dict[str, Any]:
    return {
        "repository": repository,
        "state": run.state,
        "version": run.version_number,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "received_bytes": run.usage.received_bytes,
        "held_tags": run.counts.held_tag_count,
        "triggered_by": run.triggered_by,
        "removals_approved_by": run.removals_approved_by,
        "removals_approved_at": run.removals_approved_at,
        "error": run.error,
        "dag_id": run.key.dag_id,
        "run_id": run.key.run_id,
    }


def _for_a_terminal(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that fit into lines: a long name shortened, an error's name alone, and the DAG only where it is not assumed.

    ``run show``, JSON and YAML have them in full.
    """
    assumed = {load_settings().sync_dag_id, LOCAL_DAG_ID}
    left_out = {"finished_at"} | ({"dag_id"} if all(row["dag_id"] in assumed for row in rows) else set())
    shown = ({**row, "repository": _short(row["repository"]), "error": _name_of_error(row["error"])} for row in rows)
    return [{name: value for name, value in row.items() if name not in left_out} for row in shown]


def _short(repository: str | None) -> str | None:
    return None if repository is None else shortened(repository, _MOST_WIDTH)


def _name_of_error(error: str | None) -> str | None:
    return None if error is None else error.partition(": ")[0][:_MOST_WIDTH]


def _fields(database: Database, run: SyncRun) -> dict[str, Any]:
    counts = dict(vars(database.runs.progress(run.id)))
    # Not what the upstream has no longer, which a refusal of removals counts: that was never listed.
    counts["listed_and_gone_tag_count"] = counts.pop("gone_tag_count")
    return {
        **_row(run, run.repository_name),
        "listing_task": run.key.scope or None,
        "mode": run.mode,
        "policy": run.policy,
        "upstream": run.remote.source,
        "remote_changes": run.remote_changes,
        "listed_at": run.listed_at,
        **counts,
        "requests": {name: count for name, count in vars(run.usage).items() if name != "received_bytes"},
    }
