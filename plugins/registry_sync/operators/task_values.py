"""The values that a task reads: template fields, and the sync it belongs to.

Template fields arrive as text or as native values, and are converted to the type that an operator requires.

A task belongs to the sync of the nearest listing task upstream, also where a DAG run has several syncs; tasks below a
commit or below another listing task belong to another sync. Tasks are recognized by their operators and their position,
never by name, so that they may have any id and be in any task group. DAG runs are queried through the task's own
connection to the API server, because tasks cannot access Airflow's database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry_sync.domain.quantities import parse_flag
from registry_sync.domain.references import split_patterns
from registry_sync.domain.remote import Typed
from registry_sync.domain.runs import DagRunEnd
from registry_sync.errors import ConfigurationError, StagesUnfinished
from registry_sync.hooks.dag_runs import triggered_by

if TYPE_CHECKING:
    from registry_sync.domain.runs import RunKey, RunTrigger, SyncRun


def as_list(value: object) -> tuple[str, ...] | None:
    """A template's text, ``a, b``, or a list, as a tuple; None for nothing.

    Template fields are rendered as text; commas within the braces of a glob divide nothing. Raises
    :class:`ConfigurationError` for anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = split_patterns(value)
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"give text with commas or a list, not {type(value).__name__}")
    return tuple(text for text in map(as_text, value) if text is not None) or None


def as_option(value: object, typed: Typed) -> object:
    """The value of an option of a remote as its reader takes it; None for nothing. Raises :class:`ConfigurationError`.

    A template renders text: of regular expressions one on each line, of objects and their lists JSON.
    """
    if typed is Typed.TEXT:
        return as_text(value)
    if typed is Typed.LIST:
        return as_list(value)
    if typed is Typed.LINES and isinstance(value, str):
        value = value.splitlines()
    if isinstance(value, str):
        return as_text(value)
    return tuple(value) or None if isinstance(value, list | tuple) else value


def as_text(value: object) -> str | None:
    """A template's text without surrounding blanks; None for empty text and for ``None``.

    Raises :class:`ConfigurationError` for a collection, which native templates may render.
    """
    if isinstance(value, list | tuple | set | frozenset | dict):
        raise ConfigurationError(f"give one text, not {type(value).__name__}: {str(value)[:80]!r}")
    text = "" if value is None else str(value).strip()
    return None if text in ("", "None") else text


def as_flag(value: object, name: str) -> bool:
    """A template's yes or no; ``None``, which templates give in any case, and nothing are a no.

    Raises :class:`ConfigurationError` for anything else; ``name`` is what it speaks of.
    """
    is_none = str(value).strip().lower() == "none"
    return bool(parse_flag(None if is_none else value, name))


def as_number(value: object, name: str) -> float | None:
    """``value`` as a number; None for empty. Raises :class:`ConfigurationError` with ``name``."""
    text = as_text(value)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text[:40]!r}; give a number") from None


_NOT_ENDED = ("queued", "running")
#: States in which a task will not run again unless it is cleared.
_PASSED = frozenset({"skipped", "success", "removed"})


def run_trigger(context: Mapping[str, Any]) -> RunTrigger:
    """Who or what started the DAG run of a task, when, and whether it was cleared since."""
    from registry_sync.domain.runs import RunTrigger

    dag_run = context["dag_run"]
    return RunTrigger(
        triggered_by=triggered_by(dag_run),
        dag_run_started_at=dag_run_started_at(context),
        is_cleared=bool(getattr(dag_run, "clear_number", 0)),
    )


def dag_run_started_at(context: Mapping[str, Any]) -> datetime | None:
    """The start time of a task's DAG run, which changes when it is cleared; None when unknown."""
    started_at: datetime | None = getattr(context.get("dag_run"), "start_date", None)
    return started_at


def dag_run_end(context: Mapping[str, Any], run: SyncRun) -> DagRunEnd | None:
    """The end of a sync's DAG run; None while it is running."""

    def has(*states: str) -> bool:
        count = context["ti"].get_dr_count(dag_id=run.key.dag_id, run_ids=[run.key.run_id], states=list(states))
        return bool(count)

    if has(*_NOT_ENDED):
        return None
    if has("success"):
        return DagRunEnd.SUCCESS
    return DagRunEnd.FAILED if has("failed") else DagRunEnd.GONE


def refuse_lost_commit(context: Mapping[str, Any]) -> None:
    """Raises :class:`StagesUnfinished` when the commit of a repeated task's sync was skipped and will stay so.

    A run that is marked as failed skips tasks that had not started, and clearing the failed tasks leaves these skipped:
    such a run would end successfully without a version.
    """
    ti, task = context["ti"], context.get("task")
    commits = [] if task is None else list(_commits_after(task))
    if not commits:
        return
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=commits, run_ids=[ti.run_id]).get(ti.run_id, {})
    if states and all(state in _PASSED for state in states.values()):
        raise StagesUnfinished(
            f"{', '.join(commits)} of this run was skipped or has ended before, and does not run again by itself, so "
            f"no version would be made. Clear {ti.task_id} with all its downstream tasks (Downstream in the dialog), "
            "or start a new run"
        )


def _commits_after(task: Any) -> Iterator[str]:
    """The commits below a task that belong to its sync."""
    from registry_sync.operators.commit_version import CommitVersionOperator

    own = {task.task_id} if _is_listing(task) else {listing.task_id for listing in listings_above(task)}
    for after in task.get_flat_relatives(upstream=False):
        if _is_a(after, CommitVersionOperator) and own & {listing.task_id for listing in listings_above(after)}:
            yield after.task_id


#: The XCom key of a listing task for the id of its sync run.
SYNC_RUN_KEY = "sync_run"


def run_key(context: Mapping[str, Any]) -> RunKey:
    """The key of the sync that a listing task starts.

    Its scope is the id of the task, with the map index of a mapped one; empty if no other task of the DAG lists tags.
    """
    from registry_sync.domain.runs import RunKey

    ti, task = context["ti"], context.get("task")
    if is_mapped_instance(context):
        scope = f"{ti.task_id}[{ti.map_index}]"
    else:
        scope = "" if task is None or _is_only_listing(task) else ti.task_id
    return RunKey(dag_id=ti.dag_id, run_id=ti.run_id, scope=scope)


def is_mapped_instance(context: Mapping[str, Any]) -> bool:
    """Whether the running task is an instance of a mapped task."""
    return int(context["ti"].map_index) >= 0


def find_sync_run(task: Any, context: Mapping[str, Any], given: str | None) -> str:
    """The id of ``task``'s sync run: ``given``, else the one that the listing task upstream has pushed.

    Raises :class:`ConfigurationError` when no listing task, or more than one, is upstream of the task, or when it
    starts several syncs because it is mapped, or has not run.
    """
    text = as_text(given)
    if text is not None:
        return text
    above = listings_above(task)
    if len(above) != 1:
        found = " and ".join(sorted(repr(listing.task_id) for listing in above)) or "none"
        raise ConfigurationError(
            f"the task {task.task_id!r} works for the sync of the listing task above it, and there is {found}. Set one "
            "ListTagsOperator upstream of it, or pass "
            f"sync_run=\"{{{{ ti.xcom_pull(task_ids='…', key='{SYNC_RUN_KEY}') }}}}\""
        )
    listing, ti = above[0], context["ti"]
    if _is_mapped(listing) and not is_mapped_instance(context):
        raise ConfigurationError(
            f"the task {task.task_id!r} works for one sync, and {listing.task_id!r} is mapped and starts several: map "
            "this task as well, with .expand(sync_run=…)"
        )
    map_index = ti.map_index if _is_mapped(listing) else -1
    pulled = as_text(ti.xcom_pull(task_ids=listing.task_id, key=SYNC_RUN_KEY, map_indexes=map_index))
    if pulled is None:
        raise ConfigurationError(
            f"the task {task.task_id!r} works for the sync that {listing.task_id!r} starts, and that task has not run "
            "in this DAG run"
        )
    return pulled


def listings_above(task: Any) -> list[Any]:
    """The nearest listing tasks upstream of a task, mapped ones included; empty for a task outside a DAG."""
    from registry_sync.operators.commit_version import CommitVersionOperator

    found: dict[str, Any] = {}
    seen: set[str] = set()
    waiting = list(task.dag.get_task(task.task_id).get_direct_relatives(upstream=True)) if task.has_dag() else []
    while waiting:
        near = waiting.pop()
        if near.task_id in seen:
            continue
        seen.add(near.task_id)
        if _is_listing(near):
            found[near.task_id] = near
        elif not _is_a(near, CommitVersionOperator):
            waiting += near.get_direct_relatives(upstream=True)
    return [found[name] for name in sorted(found)]


def only_of_this_sync(task: Any) -> set[str]:
    """Ids of the tasks downstream of a listing task that wait for its sync alone.

    Another listing task downstream starts another sync, to which all tasks below it belong; so do those below a
    parallel one.
    """
    below = set(task.get_flat_relative_ids(upstream=False))
    for other in task.dag.tasks if task.has_dag() else ():
        if other.task_id == task.task_id or not _is_listing(other):
            continue
        below_other = set(other.get_flat_relative_ids(upstream=False))
        if task.task_id not in below_other:
            below -= {other.task_id, *below_other}
    return below


def is_lone_sync(task: Any) -> bool:
    """Whether a task belongs to a single sync, not to a mapped listing task or to several."""
    above = listings_above(task)
    return len(above) < 2 and not any(map(_is_mapped, above))


def task_ids_near(task: Any, names: Iterable[str]) -> list[str]:
    """``names`` as task ids of the DAG: of tasks in ``task``'s own group, or in the nearest enclosing one.

    A name without a task is returned unchanged.
    """
    known, groups = set(task.dag.task_ids) if task.has_dag() else set(), []
    group = task.task_group
    while group is not None:
        groups.append(group)
        group = group.parent_group
    found = []
    for name in names:
        candidates = [*(group.child_id(name) for group in groups), name]
        found.append(next((candidate for candidate in candidates if candidate in known), name))
    return found


def refuse_expanded_group(operator: type, given: Mapping[str, Any]) -> None:
    """Raises :class:`ConfigurationError` when an operator is expanded in a task group that is expanded itself.

    Airflow refuses this without naming a remedy. ``given`` are the arguments of ``partial``.
    """
    from airflow.sdk.definitions._internal.contextmanager import TaskGroupContext

    group = given.get("task_group") or TaskGroupContext.get_current(given.get("dag"))
    expanded = None if group is None else next(group.iter_mapped_task_groups(), None)
    if expanded is not None:
        raise ConfigurationError(
            f"{operator.__name__} is expanded over shards, and Airflow expands no task in a task group that is "
            f"expanded itself, as {expanded.group_id!r} is. For small repositories call sync_repository(…, small=True) "
            "there; for others create a task group for each, in a loop of the DAG file; or if they are known only at "
            "run time, trigger a DAG run for each: TriggerDagRunOperator.partial(…).expand(conf=…)"
        )


def _is_only_listing(task: Any) -> bool:
    """Whether no other task of the DAG lists tags."""
    others = task.dag.tasks if task.has_dag() else ()
    return not any(_is_listing(other) for other in others if other.task_id != task.task_id)


def _is_listing(task: Any) -> bool:
    from registry_sync.operators.list_tags import ListTagsOperator

    return _is_a(task, ListTagsOperator)


def _is_a(task: Any, kind: type) -> bool:
    """Whether a task, mapped or not, is of that operator class."""
    made_by = getattr(task, "operator_class", None) or type(task)
    return isinstance(made_by, type) and issubclass(made_by, kind)


def _is_mapped(task: Any) -> bool:
    return bool(getattr(task, "is_mapped", False)) or task.get_closest_mapped_task_group() is not None
