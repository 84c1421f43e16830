"""The base of all operators: the run, its resources, the conversion of errors for Airflow, and the task's log.

Airflow's task runner logs the exception that ends a task with its traceback. For a :class:`RegistrySyncError` the
message says what happened and what to do, and the frames belong to Airflow. So the record is reduced to one line when
it is logged; the traceback is available at level DEBUG. A defect keeps its traceback.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import RetryDecision, RetryPolicy

from registry_sync.domain.quantities import format_count
from registry_sync.errors import (
    ConfigurationError,
    MirrorsUnfinished,
    RateLimited,
    RegistryError,
    RegistrySyncError,
    RunEnded,
)
from registry_sync.hooks.sync_traces import StageSpan, stage_span
from registry_sync.operators.links import forget_links
from registry_sync.operators.run_notes import about_sync, failure_note
from registry_sync.operators.task_values import dag_run_started_at, refuse_lost_commit
from registry_sync.operators.triggered import refuse_unknown_parameters

if TYPE_CHECKING:
    from datetime import datetime

    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.domain.runs import SyncRun
    from registry_sync.hooks.account_budgets import AccountBudgets
    from registry_sync.hooks.settings import Settings
    from registry_sync.hooks.sync_metrics import SyncMetrics
    from registry_sync.oci.client import RegistryClient
    from registry_sync.sync.plan_blobs import BlobsPlanned


#: The longest delay that a registry may request; Docker Hub's limits last six hours.
LONGEST_DELAY = timedelta(hours=6)
#: Errors that a retry cannot fix.
DEFECTS = (AttributeError, ImportError, NameError, SyntaxError, TypeError)


class RegistryRetryPolicy(RetryPolicy):
    """Waits as long as the registry requests, without occupying a slot; a defect in the code fails at once.

    All other errors are retried by the task's own settings.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  the signature is Airflow's
        max_tries: int,  # noqa: ARG002
        context: Any = None,  # noqa: ARG002
    ) -> RetryDecision:
        """The decision for ``exception``; see :class:`airflow.sdk.RetryPolicy`."""
        if isinstance(exception, RegistryError) and exception.retry_after_seconds:
            delay = min(timedelta(seconds=exception.retry_after_seconds), LONGEST_DELAY)
            why = "is limiting requests" if isinstance(exception, RateLimited) else "is unavailable"
            return RetryDecision.retry(delay=delay, reason=f"{exception.host} {why}, try again in {delay}")
        if isinstance(exception, MirrorsUnfinished) and exception.retry_after_seconds:
            delay = min(timedelta(seconds=exception.retry_after_seconds), LONGEST_DELAY)
            return RetryDecision.retry(delay=delay, reason=f"registries are limiting requests, try again in {delay}")
        if isinstance(exception, DEFECTS):
            return RetryDecision.fail(reason=f"a defect, not a transient failure: {type(exception).__name__}")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep: the policy has no parameters."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RegistryRetryPolicy:  # noqa: ARG003  as above
        """The policy."""
        return cls()


log = logging.getLogger(__name__)


class TaskReport:
    """Writes a stage's lines to the task's log; ``warning`` for what needs attention though the run continues."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __call__(self, line: str) -> None:
        self._logger.info("%s", line)

    def warning(self, line: str) -> None:
        """Logs a warning."""
        self._logger.warning("%s", line)


def log_errors_in_one_line() -> None:
    """Makes this process log a :class:`RegistrySyncError` without a traceback, also one that ends the task.

    Safe to repeat. If Airflow's logging changes, the traceback stays.
    """
    import structlog

    processors = structlog.get_config()["processors"]
    if isinstance(processors, list) and _in_one_line not in processors:
        processors.insert(0, _in_one_line)


#: ``M_ARENA_MAX`` of glibc's ``mallopt``.
_ARENA_MAX = -8


def share_arenas() -> None:
    """Makes all threads of this process allocate from two arenas, where the C library is glibc. Safe to repeat.

    By itself it gives each thread one of its own, up to eight for each processor, which keeps what that has freed.
    The threads of a sync allocate one buffer of some hundred kilobytes after another, and mostly under Python's lock.
    """
    import ctypes

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def _in_one_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    problem = _exception(event.get("exc_info"))
    line = None if problem is None else _line(problem)
    if line is None:
        return event
    log.debug("the traceback of the error", exc_info=problem)
    event["event"] = line
    del event["exc_info"]
    return event


def _exception(given: Any) -> BaseException | None:
    """The exception of a log record: an exception, ``True`` for the one being handled, or a triple."""
    if given is True:
        return sys.exc_info()[1]
    if isinstance(given, tuple) and len(given) > 1:
        given = given[1]
    return given if isinstance(given, BaseException) else None


def _line(problem: BaseException) -> str | None:
    """The error in one line; None when it is no :class:`RegistrySyncError`."""
    if isinstance(problem, RegistrySyncError):
        return " ".join(f"{type(problem).__name__}: {problem}".split())
    return " ".join(str(problem).split()) if isinstance(problem.__cause__, RegistrySyncError) else None


@dataclass
class Stage:
    """The resources of one task, opened when first used and closed when the task ends."""

    settings: Settings
    is_last_try: bool
    closing: ExitStack
    dag_run_started_at: datetime | None = None
    span: StageSpan = field(default_factory=StageSpan)
    _run: SyncRun | None = None

    @cached_property
    def database(self) -> Database:
        """The metadata database."""
        from registry_sync.hooks.stores import open_database

        database = open_database(self.settings)
        self.closing.callback(database.close)
        return database

    @cached_property
    def blobs(self) -> BlobStore:
        """The blob store."""
        from registry_sync.hooks.stores import open_blobs

        return open_blobs(self.settings)

    @cached_property
    def budgets(self) -> AccountBudgets:
        """What accounts at registries allow all processes of the installation; this one's part ends with the task."""
        from registry_sync.hooks.account_budgets import AccountBudgets

        return self.closing.enter_context(AccountBudgets(self.database.account_budgets))

    def use(self, run: SyncRun) -> tuple[SyncRun, RemoteSpec]:
        """``run``, which becomes the stage's run, and the remote as that run uses it.

        Raises :class:`ConfigurationError` for a run that records none.
        """
        self._run = run
        self.span.record_run(run)
        if run.remote is None:
            raise ConfigurationError(f"the sync of DAG run {run.key.run_id!r} records no remote; start a new DAG run")
        return run, run.remote

    def find(self, sync_run: str) -> tuple[SyncRun, RemoteSpec]:
        """The run of that id and its remote; an ended run resumes when its DAG run was cleared.

        Raises :class:`RunEnded` when the DAG run has ended or the repository was deleted,
        :class:`~registry_sync.errors.RecordNotFound`.
        """
        return self.use(self.database.run_ends.resume(sync_run, self.dag_run_started_at))

    def client(self, remote: RemoteSpec) -> RegistryClient:
        """A client of the remote's registry, with the credentials of its connection; its usage is recorded."""
        return self.connect(remote)[0]

    def connect(self, remote: RemoteSpec, task_count: int = 1) -> tuple[RegistryClient, RemoteSpec]:
        """A client for one of ``task_count`` tasks of a stage, and ``remote`` with this task's concurrency.

        Together the tasks keep to what the connection allows on the host (:mod:`registry_sync.hooks.connection`). It
        begins with what the registry taught an earlier task of the sync about authentication, and with their part of
        the requests at once that it has served in one, or in the sync before.
        """
        from registry_sync.hooks.clients import open_client

        client = self.closing.enter_context(open_client(remote, task_count, self.budgets))
        if self._run is not None:
            client.begin_with(self._run.challenge)
            client.begin_at(None if self._run.pace is None else self._run.pace.shared(task_count))
        self.closing.callback(self._record_usage, client, is_alone=task_count == 1)
        return client, replace(remote, download_concurrency=client.options.concurrency)

    @contextmanager
    def connected(self, remote: RemoteSpec) -> Iterator[tuple[RegistryClient, RemoteSpec]]:
        """As :meth:`connect`."""
        yield self.connect(remote)

    def max_shards(self, remote: RemoteSpec) -> int:
        """The most mapped tasks of a stage: the setting's, limited by the concurrency that the connection allows."""
        from registry_sync.hooks.clients import most_tasks

        return most_tasks(remote, self.settings.max_shards)

    @property
    def is_unfinished(self) -> bool:
        """Whether the stage has a run that has not settled."""
        return self._run is not None and not self.database.runs.get(self._run.id).state.is_settled

    def record_failure(self, error: RegistrySyncError) -> None:
        """Records the failure with the run; logs a warning when even that fails."""
        from registry_sync.domain.runs import RunState

        if self._run is None or isinstance(error, RunEnded):
            return
        try:
            self.database.runs.finish(self._run.id, RunState.FAILED, error=f"{type(error).__name__}: {error}")
        except RegistrySyncError as problem:
            log.warning("the failure could not be recorded with the sync run: %s", problem)

    def about(self) -> str | None:
        """What the note of the DAG run calls the stage's sync; None without a sync, and once its repository is gone."""
        if self._run is None:
            return None
        try:
            return about_sync(self.database.repositories.get(self._run.repository_id).name, self._run.key.scope)
        except RegistrySyncError as problem:
            log.warning("the repository of the sync could not be read: %s", problem)
            return None

    @cached_property
    def metrics(self) -> SyncMetrics | None:
        """The metrics of the stage's sync; None where Airflow sends none, or the stage has no sync."""
        return None if self._run is None else self.metrics_of(self._run)

    def metrics_of(self, run: SyncRun) -> SyncMetrics | None:
        """The metrics of a sync; None where Airflow sends none."""
        from registry_sync.hooks.sync_metrics import OTHER_MIRRORS, SyncMetrics, are_sent

        if not are_sent():
            return None
        repository = self.database.repositories.get(run.repository_id)
        is_own = self.database.repositories.count_created_before(repository) < self.settings.metrics_mirrors
        return SyncMetrics(run.remote.url.netloc, repository.name if is_own else OTHER_MIRRORS)

    def count(self, **counts: int) -> None:
        """Adds to counters of content, see :meth:`~registry_sync.hooks.sync_metrics.SyncMetrics.record_counts`."""
        self.span.record(**counts)
        if self.metrics is not None:
            self.metrics.record_counts(**counts)

    def count_planned(self, planned: BlobsPlanned) -> None:
        """Adds the blobs that are in the store already to their counter."""
        self.count(blobs__reused=planned.stored_count)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Sends the duration of a stage of a sync when it ends. A failure to do so is logged."""
        began, outcome = time.monotonic(), "deferred"
        try:
            yield
            outcome = "success"
        except Exception:
            outcome = "failed"
            raise
        finally:
            try:
                if self.metrics is not None:
                    duration = timedelta(seconds=time.monotonic() - began)
                    self.metrics.record_stage(name, duration, outcome)
            except RegistrySyncError as problem:
                log.warning("the duration could not be sent as a metric: %s", problem)

    def _record_usage(self, client: RegistryClient, *, is_alone: bool) -> None:
        """Records what a client has used, and what it has learned; a number of requests at once if it ``is_alone``."""
        limit = client.usage.rate_limit
        if limit is not None:
            log.info("%s allows %s", client.registry.netloc, format_count(limit.remaining, "more pull"))
        self.span.record_usage(client.usage)
        if self._run is None:
            return
        try:
            self.database.runs.add_usage(self._run.id, client.usage.counts())
            self._record_learned(self._run, client, is_alone=is_alone)
            if self.metrics is not None:
                self.metrics.record_usage(client.usage)
        except RegistrySyncError as problem:
            log.warning("the usage of the registry could not be recorded: %s", problem)

    def _record_learned(self, run: SyncRun, client: RegistryClient, *, is_alone: bool) -> None:
        """Records what is new of it. A pace outlasts the sync; of several tasks at once, only that one was refused."""
        learned, pace = client.learned(), client.pace()
        if learned is None:  # no response
            return
        if not is_alone and (pace is None or pace.at_once):
            pace = run.pace
        if pace != run.pace or (learned != run.challenge and self.is_unfinished):
            self.database.runs.record_learned(run.id, learned, pace)


@contextmanager
def open_stage(
    context: Mapping[str, Any], name: str | None = None, about: Callable[[], str] | None = None
) -> Iterator[Stage]:
    """The resources of a stage; its errors are converted for Airflow.

    With the ``name`` of a stage of a sync its duration is sent as a metric, and it has a span.

    A temporary error is raised unchanged, so that the task is retried; any other becomes ``AirflowFailException``,
    because a retry would not help. Both keep the message. A final failure is recorded with the sync run, passed on to
    the note of the DAG run, and logged in one line; ``about`` gives what the note calls a sync that has no run yet. A
    repeated stage fails when no commit would follow it.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from registry_sync.hooks.settings import load_settings

    forget_links(context)
    log_errors_in_one_line()
    share_arenas()
    last = is_last_try(context)
    noted: str | None = None
    try:
        refuse_unknown_parameters(context)
        with ExitStack() as closing:
            # Entered first and so closed last: what is recorded at the end belongs to the span too.
            span = closing.enter_context(stage_span(name)) if name else StageSpan()
            stage = Stage(load_settings(), last, closing, dag_run_started_at(context), span)
            try:
                with stage.measured(name) if name else nullcontext():
                    yield stage
                if context["ti"].try_number > 1 and stage.is_unfinished:
                    refuse_lost_commit(context)
            except RegistrySyncError as error:
                if last or not error.is_temporary:
                    stage.record_failure(error)
                    noted = stage.about()
                raise
    except RegistrySyncError as error:
        if (last or not error.is_temporary) and not isinstance(error, MirrorsUnfinished):  # which has noted each mirror
            if noted is None and (name or about):
                noted = "" if about is None else about()
            if noted is not None:
                failure_note(noted, error).push(context)
        if error.is_temporary:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def skip(context: Mapping[str, Any], tasks: Iterable[str]) -> NoReturn:
    """Ends the task successfully and skips ``tasks``, by id, with the instances that an earlier try had mapped."""
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    raise DownstreamTasksSkipped(tasks=_instances(context, tasks))  # type: ignore[no-untyped-call]


def skip_and_go_on(context: Mapping[str, Any], tasks: Iterable[str]) -> None:
    """Skips ``tasks`` as :func:`skip`; the task goes on, and what it returns can still be mapped over.

    So a skipped task that somebody clears can be expanded. Ends the task where Airflow offers no such thing.
    """
    try:
        from airflow.sdk.execution_time.comms import SkipDownstreamTasks
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS
    except ImportError:
        skip(context, tasks)
    SUPERVISOR_COMMS.send(SkipDownstreamTasks(tasks=_instances(context, tasks)))


def _instances(context: Mapping[str, Any], tasks: Iterable[str]) -> list[str | tuple[str, int]]:
    """``tasks`` with the instances that an earlier try had mapped.

    Airflow skips instances by map index, and a task that was cleared with its run keeps its earlier instances. They are
    mapped from what this task returned, so that a first try has none, and no request is made for them.
    """
    ti, names = context["ti"], sorted(tasks)
    is_repeated = names and ti.try_number > 1
    found = ti.get_task_states(ti.dag_id, task_ids=names, run_ids=[ti.run_id]) if is_repeated else {}
    instances = [(name, -1) for name in names]
    for instance in found.get(ti.run_id, {}):
        name, _, index = instance.rpartition("_")  # Airflow writes fetch_blobs_0 for fetch_blobs[0]
        if name in names and index.isdigit():
            instances.append((name, int(index)))
    return sorted(instances)


def read_shard(shard: object, given_by: str) -> Mapping[str, Any]:
    """The shard of a mapped task. Raises :class:`ConfigurationError` when it is no entry of ``given_by``."""
    if not isinstance(shard, Mapping) or not {"sync_run", "shard", "shards"} <= shard.keys():
        what = "nothing" if shard is None else type(shard).__name__
        raise ConfigurationError(
            f"this task received no shard, but {what}: map it over the output of {given_by}, with .expand(shard=…); if "
            "that is mapped itself, flatten its lists first"
        )
    return shard


def is_last_try(context: Mapping[str, Any]) -> bool:
    """Whether this is the task's last try."""
    ti = context["ti"]
    return bool(ti.try_number > ti.max_tries)
