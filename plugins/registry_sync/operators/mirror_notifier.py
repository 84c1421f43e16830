"""``MirrorNotifier``: tells people once of each state of a mirror, and not at every run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.domain.mirror_states import MirrorState, NotifiedOf
from registry_sync.domain.mirrors import Mirror, Notification
from registry_sync.domain.quantities import parse_choice, utc_now
from registry_sync.errors import ApprovalRequired, ConfigurationError, RateLimited, RegistrySyncError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.db.database import Database
    from registry_sync.hooks.settings import Settings


class MirrorNotifier(BaseNotifier):
    """Tells people when a mirror changed, has held tags, was stopped or throttled, failed, or is older than promised.

    A callback of the tasks of a sync, for ``on_success_callback``, ``on_failure_callback`` and ``on_retry_callback``,
    of ``SyncMirrorsOperator`` and of the staged operators alike. Each recipient hears of a state once, whichever
    run or DAG finds it, and again when it has ended and comes back. What a task finds goes out in one message.

    :param to: the Airflow connection that messages go to: of type SMTP, Slack, Slack webhook, Apprise or HTTP (a
        webhook that gets JSON), or any that names a ``notifier`` in Extra. None for those that the file declares
    :param on: of what: ``changed``, ``held``, ``guard``, ``stale``, ``throttled``, ``failed``; None for all
    :param freshness: how old the last successful sync may be, for ``stale``; None for any age, or what the file says
    :param fleet_path: the file or folder that declares mirrors, an absolute path; None for the setting's
    :param repository: the mirror, where no sync may have started that says so; None to find it by the run
    """

    def __init__(
        self,
        *,
        to: str | None = None,
        on: Sequence[str] | None = None,
        freshness: timedelta | None = None,
        fleet_path: str | None = None,
        repository: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kinds = tuple(NotifiedOf) if on is None else tuple(parse_choice(NotifiedOf, kind, "on") for kind in on)
        self.to = to
        self.kinds = frozenset(kinds)
        self.freshness = freshness
        self.fleet_path = fleet_path
        self.repository = repository

    def notify(self, context: Context) -> None:
        """Sends what is new; raises what failed, after all else was sent. The next run tries that again."""
        from registry_sync.hooks.settings import load_settings
        from registry_sync.hooks.stores import open_database

        if context.get("exception") is None and not getattr(context.get("task"), "settles_syncs", True):
            return  # the success of a stage that another one follows
        settings = load_settings()
        if self.to is None and self.fleet_path is None and settings.fleet_path is None:
            return  # no file says who is to be notified
        with open_database(settings) as database:
            self._send_all(database, self._claimed(database, settings, context), context)

    def notify_of_ages(
        self,
        database: Database,
        mirrors: Iterable[Mirror],
        context: Mapping[str, Any],
        *,
        declared_at: datetime,
        grace: timedelta,
    ) -> list[str]:
        """Sends which of ``mirrors`` are older than promised by more than ``grace``, and returns the names of these.

        Whether or not any run has started: one that was never synced is as old as its declaration, ``declared_at``.
        """
        from registry_sync.sync.observed_states import stale_state

        now, found, claimed = utc_now(), list[str](), dict[str, list[MirrorState]]()
        for mirror in mirrors:
            recipients = [one.conn_id for one in mirror.notifications if NotifiedOf.STALE in one.on]
            if mirror.freshness is None or not mirror.is_enabled:
                continue
            state = stale_state(database, mirror.repository, mirror.freshness, now, since=declared_at, grace=grace)
            if state is None:
                continue
            found.append(mirror.repository)
            for conn_id in recipients:
                claimed.setdefault(conn_id, []).extend(
                    database.notified_states.claim(
                        mirror.repository, conn_id, [state], kinds={NotifiedOf.STALE}, has_failed=False
                    )
                )
        self._send_all(database, {conn_id: states for conn_id, states in claimed.items() if states}, context)
        return found

    def _send_all(
        self, database: Database, claimed: Mapping[str, Sequence[MirrorState]], context: Mapping[str, Any]
    ) -> None:
        with ExitStack() as closing:
            for conn_id, states in claimed.items():
                # Each is called, whatever the others raise.
                closing.callback(self._send, database, conn_id, states, context)

    def _send(
        self, database: Database, conn_id: str, states: Sequence[MirrorState], context: Mapping[str, Any]
    ) -> None:
        from registry_sync.hooks.notifications import send_message

        try:
            send_message(conn_id, states, context)
        except BaseException:
            database.notified_states.release(conn_id, states)
            raise

    def _claimed(
        self, database: Database, settings: Settings, context: Mapping[str, Any]
    ) -> dict[str, list[MirrorState]]:
        """The states that are news, by the connection that is to be notified."""
        from registry_sync.sync.observed_states import observed_states

        now, claimed = utc_now(), dict[str, list[MirrorState]]()
        known_of = self._declared(settings)
        ends = list(self._ends(database, settings, context))
        notified = self._notified(database, ends, known_of)
        for end in ends:
            notifications, freshness = known_of(end.repository)
            if not notifications or _is_nothing_new(end, notified.get(end.repository, {})):
                continue
            is_stopped = end.outcome is MirrorOutcome.STOPPED and end.sync_run_id is not None
            refused = database.runs.get(str(end.sync_run_id)).refused_removals if is_stopped else None
            states = observed_states(
                database,
                end.repository,
                now,
                outcome=end.outcome,
                error=end.error,
                refused=refused,
                freshness=freshness,
                since=end.started_at,
            )
            has_failed = not end.outcome.is_success
            for notification in notifications:
                kinds = self.kinds.intersection(notification.on)
                found = database.notified_states.claim(
                    end.repository, notification.conn_id, states, kinds=kinds, has_failed=has_failed
                )
                if found:
                    claimed.setdefault(notification.conn_id, []).extend(found)
        return claimed

    def _notified(
        self, database: Database, ends: Iterable[MirrorResult], known_of: _Declared
    ) -> Mapping[str, dict[str, str]]:
        names = [end.repository for end in ends]
        recipients = {notification.conn_id for name in names for notification in known_of(name)[0]}
        return database.notified_states.known(names, recipients) if recipients else {}

    def _declared(self, settings: Settings) -> _Declared:
        """Who is notified of what of a mirror, and its freshness."""
        if self.to is not None:
            given = (Notification(tuple(self.kinds), self.to),)
            return lambda _name: (given, self.freshness)
        from registry_sync.operators.list_mirror_tags import declared_fleet

        fleet = declared_fleet(settings, self.fleet_path)

        def declared(name: str) -> tuple[tuple[Notification, ...], timedelta | None]:
            try:
                mirror = fleet.mirror(name)
            except ConfigurationError:  # removed from the file, or one with a mistake
                return (), None
            return mirror.notifications, self.freshness or mirror.freshness

        return declared

    def _ends(self, database: Database, settings: Settings, context: Mapping[str, Any]) -> Iterator[MirrorResult]:
        """How the syncs of the task have ended; nothing for one that goes on in another task."""
        if "ti" not in context:
            yield from self._without_task(settings, context)
            return
        ti, task = context["ti"], context.get("task")
        results = database.mirror_results.of_task(ti.dag_id, ti.run_id, ti.task_id)
        if results:
            owns = getattr(task, "owns", lambda _name: True)
            yield from (result for name, result in results.items() if owns(name))
            return
        error: BaseException | None = context.get("exception")
        if error is not None and isinstance(error.__cause__, RegistrySyncError):
            error = error.__cause__
        runs = database.runs.of_dag_run(_dag_run_key(ti))
        for run in runs:
            outcome = MirrorOutcome.UNCHANGED if run.state.is_settled else _outcome(error)
            if outcome is not None:
                text = None if outcome.is_success else _text(error)
                yield _end(ti, run.repository_name or self.repository or "", outcome, text, run.id)
        if not runs and self.repository is not None and error is not None:
            yield _end(ti, self.repository, _outcome(error) or MirrorOutcome.FAILED, _text(error), None)

    def _without_task(self, settings: Settings, context: Mapping[str, Any]) -> Iterator[MirrorResult]:
        """The mirrors of a DAG whose deadline has passed, of which nothing else is known."""
        from registry_sync.operators.list_mirror_tags import declared_fleet

        dag_id = str(context["dag_run"]["dag_id"])
        fleet = declared_fleet(settings, self.fleet_path)
        named = () if self.repository is None else (self.repository,)
        of_group = [group.repositories for group in fleet.groups.values() if group.dag_id == dag_id]
        now, queued_at = utc_now(), context["dag_run"].get("queued_at")
        began = datetime.fromisoformat(queued_at.replace("Z", "+00:00")) if queued_at else now
        for name in named or (of_group[0] if of_group else ()):
            yield MirrorResult(dag_id, "", "", name, 0, MirrorOutcome.UNCHANGED, began, now)


def notify_of_passed_deadline(context: dict[str, Any], **more: Any) -> None:
    """Notifies of mirrors that are older than promised: the callback of the deadlines of the DAGs that a file makes.

    ``more`` are parameters of :class:`MirrorNotifier`. A later run may have succeeded meanwhile, so that the age is
    judged by what is stored, and not by the run whose deadline has passed.
    """
    MirrorNotifier(on=[NotifiedOf.STALE.value], **more).notify(context)  # type: ignore[arg-type]


_Declared = Callable[[str], tuple[tuple[Notification, ...], "timedelta | None"]]


def notify_of_waiting(callbacks: Any, context: Mapping[str, Any], error: BaseException | None) -> None:
    """Lets those of a task's ``callbacks`` that are notifiers of mirrors tell that it waits because of ``error``.

    A failure to do so is logged: the task goes on.
    """
    for callback in callbacks if isinstance(callbacks, Sequence) else (callbacks,):
        if isinstance(callback, MirrorNotifier):
            try:
                callback({**context, "exception": error})
            except Exception as problem:  # noqa: BLE001  whatever a notifier of others raises
                callback.log.warning("nobody could be notified of the stopped sync: %s", problem)


def _is_nothing_new(end: MirrorResult, notified: Mapping[str, str]) -> bool:
    """Whether an unchanged mirror has no state that could have ended or begun; most of a fleet are such."""
    if end.outcome is not MirrorOutcome.UNCHANGED or end.version_number is None:
        return False
    return not notified.keys() - {NotifiedOf.CHANGED.value} and notified.get(NotifiedOf.CHANGED.value) in (
        None,
        str(end.version_number),
    )


def _outcome(error: BaseException | None) -> MirrorOutcome | None:
    """The outcome that an error of a task stands for; None without one: the sync goes on in another task."""
    if error is None:
        return None
    if isinstance(error, ApprovalRequired):
        return MirrorOutcome.STOPPED
    return MirrorOutcome.THROTTLED if isinstance(error, RateLimited) else MirrorOutcome.FAILED


def _text(error: BaseException | None) -> str:
    return "no reason is known" if error is None else f"{type(error).__name__}: {error}"


def _end(ti: Any, repository: str, outcome: MirrorOutcome, error: str | None, sync_run_id: str | None) -> MirrorResult:
    now = utc_now()
    return MirrorResult(
        ti.dag_id, ti.run_id, ti.task_id, repository, 0, outcome, now, now, error=error, sync_run_id=sync_run_id
    )


def _dag_run_key(ti: Any) -> Any:
    from registry_sync.domain.runs import RunKey

    return RunKey(ti.dag_id, ti.run_id, "")
