"""A run of the sync DAG, followed in a terminal: a bar for what is counted, or lines where there is no terminal.

The run goes on without its follower: an interruption ends the command and not the run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from registry_sync.cli.command_context import print_document, print_rows
from registry_sync.cli.version_commands import row
from registry_sync.db.database import Database
from registry_sync.domain.quantities import format_bytes
from registry_sync.domain.runs import RunCounts, RunKey, RunState, SyncRun
from registry_sync.errors import RunEnded
from registry_sync.hooks.dag_runs import DagRunState, run_state

_POLL_SECONDS = 0.5
#: How long a run may wait in the queue before it is said that no scheduler runs.
_PATIENCE_SECONDS = 10.0

#: Shows a phase, and how much of it is done: of none where the total is unknown.
Show = Callable[[str, int, int], None]


def say(line: str) -> None:
    """Prints to standard error, apart from the output for programs."""
    print(line, file=sys.stderr)


def pause(seconds: float) -> None:
    """Waits until a run is looked at again."""
    time.sleep(seconds)


def follow_run(database: Database, dag_id: str, run_id: str) -> DagRunState:
    """Shows the progress of a run until it has ended, or waits for an approval, and returns its state then.

    Ends the command with status 130 when the user interrupts it; the run goes on.
    """
    waited, has_warned = 0.0, False
    try:
        with _shown() as show:
            while True:
                state = run_state(dag_id, run_id)
                phase, done, total = _progress(database, dag_id, run_id, state)
                show(phase, done, total)
                if state.has_ended or (state.is_waiting and _is_to_be_approved(database, dag_id, run_id)):
                    return state
                if not state.has_scheduler and waited >= _PATIENCE_SECONDS and not has_warned:
                    has_warned = True
                    say("no scheduler is running, so the run waits: start one (airflow scheduler), or use --local")
                pause(_POLL_SECONDS)
                waited += _POLL_SECONDS
    except KeyboardInterrupt:
        of_dag = f" --dag-id {dag_id}"
        say(
            f"\nthe run {run_id} goes on. To see it: airflow registry-sync run show '{run_id}'{of_dag}\n"
            f"To cancel it: airflow registry-sync run cancel '{run_id}'{of_dag}"
        )
        sys.exit(130)


def _progress(database: Database, dag_id: str, run_id: str, state: DagRunState) -> tuple[str, int, int]:
    runs = runs_of(database, RunKey(dag_id, run_id))
    if not runs:
        return ("ending" if state.has_ended else "waiting" if state.state == "queued" else "starting"), 0, 0
    counts = [database.runs.progress(run.id) for run in runs]
    return _phase(runs, counts)


def _phase(runs: tuple[SyncRun, ...], counts: list[RunCounts]) -> tuple[str, int, int]:
    """The phase of the syncs of a run together, and how many of its items are done."""
    if any(map(_is_stopped, runs)):
        return "waiting for an approval of its removals: airflow registry-sync run approve", 0, 0
    if all(run.listed_at is None for run in runs):
        return "listing tags", 0, 0
    pending, tags = sum(each.pending_tag_count for each in counts), sum(each.tag_count for each in counts)
    if pending:
        return "reading manifests of tags", tags - pending, tags
    blobs = sum(each.blob_count for each in counts)
    stored = sum(each.stored_blob_count + each.failed_blob_count for each in counts)
    if blobs and stored < blobs:
        size_bytes = sum(each.blob_bytes for each in counts)
        return f"downloading blobs, {format_bytes(size_bytes)}", stored, blobs
    return "making the version", blobs, blobs


def _is_stopped(run: SyncRun) -> bool:
    return run.refused_removals is not None and run.removals_approved_by is None and not run.state.is_settled


def _is_to_be_approved(database: Database, dag_id: str, run_id: str) -> bool:
    """Whether nobody has approved yet; an approval is recorded a moment before Airflow continues the task."""
    return any(map(_is_stopped, runs_of(database, RunKey(dag_id, run_id))))


def runs_of(database: Database, key: RunKey) -> tuple[SyncRun, ...]:
    """The syncs of a run of a DAG; none before one has started."""
    try:
        return database.runs.of_dag_run(key)
    except RunEnded:
        return ()


@contextmanager
def _shown() -> Iterator[Show]:
    """A bar in a terminal; elsewhere a line for each phase."""
    if not sys.stderr.isatty():
        last: list[str] = []

        def line(phase: str, _done: int, _total: int) -> None:
            if [phase] != last:
                last[:] = [phase]
                say(phase)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def bar(phase: str, done: int, total: int) -> None:
            progress.update(task, description=phase, completed=done, total=total or None)

        yield bar


def show_end(database: Database, dag_id: str, run_id: str, ended: DagRunState, output: str) -> None:
    """Prints the versions that a run made; ends the command with status 1 and the reason when it failed or waits."""
    runs = runs_of(database, RunKey(dag_id, run_id))
    rows = [_made(database, run) for run in runs]
    if output in ("json", "yaml"):
        print_document({"run_id": run_id, "dag_id": dag_id, "state": ended.state, "syncs": rows}, output)
    elif versions := [made["version"] for made in rows if made["version"] is not None and made["is_new"]]:
        print_rows(versions, output)
    for made in rows:
        if made["state"] is RunState.UNCHANGED and output == "table":
            print(f"{made['repository']}: nothing changed, no version was made")
    reasons = [run.error for run in runs if run.error]
    note = ended.note or ""
    if not reasons and note:
        reasons = [note]
    if (
        ended.state == "failed"
        or ended.is_waiting
        or any(run.state in (RunState.FAILED, RunState.CANCELED) for run in runs)
    ):
        where = ", ".join(ended.failed_tasks) or "its tasks"
        sys.exit("; ".join(reasons) or f"the run {run_id} failed; the log of {where} says why")
    if note:
        say(note)


def _made(database: Database, run: SyncRun) -> dict[str, Any]:
    version = None
    if run.version_number is not None:
        version = row(database.versions.get(run.repository_id, run.version_number))
    elif (latest := database.versions.latest(run.repository_id)) is not None:
        version = row(latest)
    return {
        "repository": run.repository_name,
        "state": run.state,
        "is_new": run.version_number is not None,
        "version": version,
        "error": run.error,
    }
