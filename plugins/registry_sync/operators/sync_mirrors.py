"""``SyncMirrorsOperator``: many small mirrors in one task, each with a result of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult, error_lines, outcome_counts, unsuccessful
from registry_sync.errors import ConfigurationError, MirrorsUnfinished, RecordNotFound
from registry_sync.hooks.sync_traces import record_mirrors
from registry_sync.operators.lineage import LineageTask, upstream_dataset, version_dataset
from registry_sync.operators.mirror_notifier import notify_of_waiting
from registry_sync.operators.parameters import check_shapes, sync_request
from registry_sync.operators.run_notes import RunNote
from registry_sync.operators.stage import LONGEST_DELAY, RegistryRetryPolicy, Stage, TaskReport, open_stage
from registry_sync.operators.task_values import as_text, dag_run_end, dag_run_started_at, run_trigger
from registry_sync.operators.triggered import is_literal, with_near_names
from registry_sync.operators.version_outputs import emit_asset_events, has_event, version_outlets

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.domain.records import RepositoryVersion
    from registry_sync.domain.runs import Authority, RunKey, RunTrigger, SyncRun
    from registry_sync.domain.settled_mirrors import SettledMirror
    from registry_sync.sync.mirror_tasks import MirrorSync
    from registry_sync.sync.open_run import SyncRequest
    from registry_sync.sync.sync_mirrors import MirrorsSynced

#: The name under which the template of a map index finds what the task is about.
MIRRORS_LABEL = "mirrors_label"
#: The XCom of the counts, of all map indexes together up to then.
COUNTS_KEY = "counts"
DEFAULT_CONCURRENCY = 8
MOST_MIRRORS = 5000
_SHOWN = 20
_ERROR_LENGTH = 300
#: What one of the mirrors may say: the parameters of a sync, and its importance.
MIRROR_FIELDS = frozenset(
    {
        "repository",
        "remote",
        "url",
        "upstream_name",
        "mode",
        "replace_upstream",
        "publish_as",
        "priority",
    }
)

#: Tags in the events of all mirrors of a task, and at least in each.
_MAX_TASK_TAGS, _FEWEST_EVENT_TAGS = 2000, 10


class SyncMirrorsOperator(LineageTask):
    """Syncs many small mirrors in one task, the most important first, and fails at the end if any of them did.

    Mirrors share one pool of connections and one cache of tokens for each account of a registry. One that fails, is
    throttled, or would remove too many tags hurts no other; each has a result in the database
    (``airflow registry-sync fleet status``). A repeat of the task syncs what has not succeeded, and only that. When
    registries ask to wait, the task waits without occupying a slot. A mirror with more work than two tasks of a stage
    is handed over to a run of the sync DAG (the setting ``sync_dag_id``).

    May be expanded over chunks: ``SyncMirrorsOperator.partial(task_id="sync").expand(mirrors=[chunk, chunk])``.

    :param mirrors: one mapping for each mirror, with the parameters of a sync as ``ListTagsOperator`` has them
        (``repository``, ``url``, ``upstream_name``, ``tags``, …) and ``priority``, a whole number, larger for more
        important ones; at most 5,000
    :param concurrency: how many mirrors are synced at once, 1 to 64
    :param max_failed: how many mirrors may fail before the task does: a whole number, or a share below 1 such as
        ``0.05``; None for any number, so that a green task says nothing of single mirrors
    :param hand_over: whether large mirrors are handed over to the sync DAG; else they are synced in this task
    :param trust_triggers: whether a user who may trigger the DAG may set the mirrors in the parameters of a run
    """

    template_fields: Sequence[str] = ("mirrors",)
    ui_color = "#e8f0d8"

    def __init__(
        self,
        *,
        mirrors: Sequence[Mapping[str, Any]],
        concurrency: int = DEFAULT_CONCURRENCY,
        max_failed: float | None = 0,
        hand_over: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("outlets", version_outlets())
        super().__init__(**kwargs)
        if not 1 <= concurrency <= 64:
            raise ConfigurationError(f"concurrency is {concurrency}; give a whole number from 1 to 64")
        if max_failed is not None and max_failed < 0:
            raise ConfigurationError(f"max_failed is {max_failed}; give a number from 0, or None for any number")
        self.mirrors = mirrors
        self.concurrency = concurrency
        self.max_failed = max_failed
        self.hand_over = hand_over

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, *more: Any, **named: Any
    ) -> None:
        """As Airflow's, without a pass over thousands of texts that are no templates."""
        if parent is self and is_literal(self.mirrors):
            template_fields = [name for name in template_fields if name != "mirrors"]
        super()._do_render_template_fields(parent, template_fields, context, *more, **named)

    def execute(self, context: Context) -> dict[str, Any]:
        """``counts`` by outcome, sums of requests, bytes and seconds, and at most 20 mirrors that did not succeed."""
        from registry_sync.hooks.shared_clients import SharedClients
        from registry_sync.sync.maintenance.collect import end_lost_runs
        from registry_sync.sync.mirror_tasks import MirrorTask
        from registry_sync.sync.sync_mirrors import sync_mirrors

        report, ti = TaskReport(self.log), context["ti"]
        task = MirrorTask(ti.dag_id, ti.run_id, ti.task_id, dag_run_started_at(context))
        with _existing_objects_frozen(), open_stage(context, "sync_mirrors", lambda: task.task_id) as stage:
            mirrors = self._mirrors(stage, context)
            context[MIRRORS_LABEL] = _label([mirror.repository for mirror in mirrors])  # type: ignore[literal-required]
            end_lost_runs(stage.database.run_ends, partial(dag_run_end, context), report=report)
            clients = stage.closing.enter_context(
                SharedClients(least_concurrency=self.concurrency, budgets=stage.budgets)
            )
            synced = sync_mirrors(
                stage.database,
                stage.blobs,
                mirrors,
                task,
                clients.connect,
                concurrency=self.concurrency,
                min_shard_bytes=stage.settings.min_shard_bytes,
                is_last_try=stage.is_last_try,
                report=report,
                hand_over=partial(self._start_other_run, stage),
                confirm_after=stage.settings.confirm_tags,
                on_start=stage.budgets.use_priority,
                on_round=stage.budgets.begin_round,
            )
            self._note(stage, context, task, synced)
            stage.span.record(mirror_count=len(synced.results))
            record_mirrors(synced.results)
            self._send_metrics(stage, synced.results)
            self._wait_for_registries(synced, context)
            self._refuse_failed(synced)
            self._emit_events(stage, context, synced.results)
        return _summary(synced.results)

    def _mirrors(self, stage: Stage, context: Context) -> list[MirrorSync]:
        from registry_sync.sync.mirror_tasks import MirrorSync

        if not isinstance(self.mirrors, list | tuple):
            raise ConfigurationError(f"mirrors is {type(self.mirrors).__name__}; give a list with a mapping for each")
        if len(self.mirrors) > MOST_MIRRORS:
            raise ConfigurationError(
                f"{len(self.mirrors):,} mirrors are too many for one task; expand the task over chunks of at most "
                f"{MOST_MIRRORS:,}"
            )
        authority, by = self.authority(context, stage.settings), run_trigger(context)
        return [
            MirrorSync(
                repository=_repository(number, mirror),
                start=partial(_start, stage, mirror, authority, by),
                priority=_priority(mirror),
                expect=partial(_expected, mirror, authority, by),
            )
            for number, mirror in enumerate(self.mirrors)
        ]

    def _start_other_run(self, stage: Stage, run: SyncRun) -> str | None:
        """The run id of the run of the sync DAG; None when the mirror is synced here.

        A run has the rights of a trigger, which may sync a remote as it is stored.
        """
        from registry_sync.hooks.dag_runs import start_from_task

        if not self.hand_over or run.remote_id is None:
            return None
        stored = stage.database.remotes.get(run.remote_id).spec
        if run.remote != stored:
            self.log.warning("%s is large, and has options of its own, so that it is synced here", run.repository_name)
            return None
        run_id = f"handed_over__{run.id}"
        conf = {"repository": run.repository_name, "remote": stored.name, "mode": run.mode.value}
        start_from_task(stage.settings.sync_dag_id, run_id, conf)
        return run_id

    def _note(self, stage: Stage, context: Context, task: Any, synced: MirrorsSynced) -> None:
        """The note of the run, with the counts of all map indexes: the last one to end has them all."""
        from registry_sync.domain.mirror_results import counts_text

        known = stage.database.mirror_results.of_task(task.dag_id, task.run_id, task.task_id)
        RunNote(task.task_id, counts_text(list(known.values())), tuple(error_lines(synced.results))).push(context)
        context["ti"].xcom_push(key=COUNTS_KEY, value=outcome_counts(known.values()))
        self.log.info("%s", synced)

    def _wait_for_registries(self, synced: MirrorsSynced, context: Context) -> None:
        """Ends the task until registries allow more, without a slot and without using up a try."""
        from airflow.sdk.exceptions import AirflowRescheduleException

        if synced.wait_seconds is None:
            return
        delay = min(timedelta(seconds=synced.wait_seconds + 1), LONGEST_DELAY)
        self.log.info("registries are limiting requests; the mirrors that are left are synced in %s", delay)
        notify_of_waiting(self.on_retry_callback, context, None)
        raise AirflowRescheduleException(datetime.now(timezone.utc) + delay)  # type: ignore[no-untyped-call]

    def _refuse_failed(self, synced: MirrorsSynced) -> None:
        """Raises :class:`MirrorsUnfinished` for more failed mirrors than allowed, when all others are done."""
        failed, total = unsuccessful(synced.results), len(synced.results)
        if self.max_failed is None or not failed:
            return
        allowed = int(self.max_failed * total) if 0 < self.max_failed < 1 else int(self.max_failed)
        if len(failed) <= allowed:
            self.log.warning("%d of %d mirrors did not succeed, which max_failed allows", len(failed), total)
            return
        error = MirrorsUnfinished(
            f"{len(failed):,} of {total:,} mirrors did not succeed, all others are done. "
            f"{'. '.join(error_lines(synced.results))}. A repeat of the task tries these alone"
        )
        error.is_temporary = any(one.is_temporary for one in failed)
        raise error

    def _send_metrics(self, stage: Stage, results: Iterable[MirrorResult]) -> None:
        """The state of each mirror that has succeeded; a repeat of the task sends it again."""
        from registry_sync.hooks.sync_metrics import are_sent

        succeeded = (MirrorOutcome.CHANGED, MirrorOutcome.HELD, MirrorOutcome.UNCHANGED)
        for result in results if are_sent() else ():
            if result.outcome not in succeeded or result.sync_run_id is None:
                continue
            with suppress(RecordNotFound):  # deleted since
                metrics = stage.metrics_of(stage.database.runs.get(result.sync_run_id))
                if metrics is not None:
                    metrics.record_success(result.version_number, result.held_count, result.finished_at)

    def _emit_events(self, stage: Stage, context: Context, results: Iterable[MirrorResult]) -> None:
        """An asset event for each version that this DAG run made, also in an earlier try that failed.

        Airflow gets the events of a task in one message, so that those of many versions list fewer tags each.
        """
        from registry_sync.pulp.version_events import MAX_EVENT_TAGS

        changed = [one for one in results if one.outcome in (MirrorOutcome.CHANGED, MirrorOutcome.HELD)]
        max_tags = min(MAX_EVENT_TAGS, max(_FEWEST_EVENT_TAGS, _MAX_TASK_TAGS // max(1, len(changed))))
        for result in changed:
            if result.version_number is None:
                continue
            try:
                repository = stage.database.repositories.by_name(result.repository)
                version = stage.database.versions.get(repository.id, result.version_number)
            except RecordNotFound:  # deleted or renamed since
                continue
            if context["ti"].try_number == 1 or not has_event(context, version):
                emit_asset_events(context, stage.database, repository, version, max_tags=max_tags)
            self._record_lineage(stage, result, version)

    def _record_lineage(self, stage: Stage, result: MirrorResult, version: RepositoryVersion) -> None:
        """Adds the upstream of a mirror and the version made of it, where somebody asks for it."""
        if result.sync_run_id is None or not self.has_lineage_provider():
            return
        with suppress(RecordNotFound):  # deleted since
            upstream = upstream_dataset(stage.database.runs.get(result.sync_run_id).remote)
            self.record_lineage(upstream, version_dataset(result.repository, version, upstream))


@contextmanager
def _existing_objects_frozen() -> Iterator[None]:
    """Leaves what exists before out of searches for garbage: one of Airflow's modules alone takes 0.1 s."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _start(stage: Stage, mirror: Mapping[str, Any], authority: Authority, by: RunTrigger, key: RunKey) -> SyncRun:
    """The run of a mirror. Raises as a sync does."""
    from registry_sync.hooks.clients import check_connection
    from registry_sync.sync.open_run import open_run

    request = _request(mirror)
    return open_run(stage.database, key, request, authority=authority, check_connection=check_connection, by=by)


def _expected(mirror: Mapping[str, Any], authority: Authority, by: RunTrigger, known: SettledMirror) -> SyncRun | None:
    """The run of a mirror by what is known of it; None where :func:`_start` has more to do. Raises as that does."""
    from registry_sync.domain.runs import Authority as Rights
    from registry_sync.sync.unchanged_mirrors import expected_run

    return expected_run(_request(mirror), known, by) if authority is Rights.AUTHOR else None


def _request(mirror: Mapping[str, Any]) -> SyncRequest:
    """The sync that a mirror asks for. Raises :class:`ConfigurationError`."""
    known = _known_fields()
    if unknown := sorted(map(str, mirror.keys() - known)):
        raise ConfigurationError(
            f"a mirror has no field {with_near_names(unknown, known)}; it has {', '.join(sorted(known))}"
        )
    check_shapes(mirror, str)
    return sync_request(mirror)


@cache
def _known_fields() -> frozenset[str]:
    """What a mirror may have."""
    from registry_sync.domain.remote import SYNC_OPTIONS

    return MIRROR_FIELDS | {option.parameter or name for name, option in SYNC_OPTIONS.items()}


def _repository(number: int, mirror: object) -> str:
    """The repository of a mirror, which identifies it. Raises :class:`ConfigurationError`."""
    name = as_text(mirror.get("repository")) if isinstance(mirror, Mapping) else None
    if name is None:
        raise ConfigurationError(f"mirror {number} has no repository: give a mapping with the name to sync into")
    return name


def _priority(mirror: Mapping[str, Any]) -> int:
    value = mirror.get("priority") or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"priority of {mirror['repository']!r} is {value!r}; give a whole number")
    return value


def _label(names: Sequence[str]) -> str:
    """``12 mirrors · library/alpine …``: what the grid shows of a map index."""
    count = f"{len(names):,} mirror{'' if len(names) == 1 else 's'}"
    return f"{count} \N{MIDDLE DOT} {names[0]}{' …' if len(names) > 1 else ''}" if names else count


def _summary(results: Sequence[MirrorResult]) -> dict[str, Any]:
    """The XCom of a task: bounded, whatever the number of mirrors."""
    failed = unsuccessful(results)
    shown = [
        {"repository": one.repository, "outcome": one.outcome.value, "error": (one.error or "")[:_ERROR_LENGTH]}
        for one in failed[:_SHOWN]
    ]
    return {
        "counts": outcome_counts(results),
        "mirror_count": len(results),
        "request_count": sum(one.request_count for one in results),
        "received_bytes": sum(one.received_bytes for one in results),
        "seconds": round(sum(one.seconds for one in results), 3),
        "failed": shown,
        "failed_count": len(failed),
    }
