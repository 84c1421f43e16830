"""The DAGs of a fleet: one for each mirror, or one for a group, as the file says.

They are made when Airflow parses the DAG file: nothing is read but the compiled fleet, and in a task only its own DAG
is made. A mirror with a mistake keeps its DAG and with that its runs; the DAG has no schedule, says what is wrong, and
a run of it fails with that. Airflow has no other place for it: an import error marks every DAG of a file as gone, and
its warnings about DAGs are of kinds that it finds itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param, get_parsing_context

from registry_sync.domain.mirrors import mirror_dag_id
from registry_sync.errors import ConfigurationError
from registry_sync.operators.check_fleet import CheckFleetOperator, CheckFreshnessOperator
from registry_sync.operators.list_mirror_tags import ListMirrorTagsOperator
from registry_sync.operators.mirror_notifier import MirrorNotifier
from registry_sync.operators.stage import RegistryRetryPolicy
from registry_sync.operators.sync_mirror_group import SyncMirrorGroupOperator, parts_of
from registry_sync.operators.sync_mirrors import MIRRORS_LABEL
from registry_sync.operators.sync_repository import FETCH_TASKS, TASK_DEFAULTS, add_stages

if TYPE_CHECKING:
    from pathlib import Path

    from registry_sync.domain.mirrors import Mirror, MirrorGroup, Mistake
    from registry_sync.fleet.declared_fleet import Fleet

#: The DAG that checks the files, and is there whatever they say.
CHECK_DAG_ID = "registry_sync_fleet"
#: When ages are checked: each hour, apart from what others have at full ones.
_FRESHNESS_SCHEDULE = "7 * * * *"
#: What Airflow calls when a run has not succeeded within the freshness of its mirrors.
_PASSED = "registry_sync.operators.mirror_notifier.notify_of_passed_deadline"
_TAG, _MISTAKE_TAG = "registry-sync", "mistake"
_MAX_TAG = 100
_SHOWN_MISTAKES = 100
_DRY_RUN = Param(
    False,
    type="boolean",
    title="Dry run",
    description="Only find out what the sync would list, add, move, remove and download; nothing is written.",
)


def mirror_dags(fleet_path: Path | None = None, *, check_dag_id: str = CHECK_DAG_ID) -> dict[str, DAG]:
    """The DAGs by id, for ``globals().update(mirror_dags())`` in a DAG file; none where no file declares mirrors.

    ``fleet_path`` None is the setting's. ``check_dag_id`` is the DAG that checks the files; each fleet has one of its
    own. Where a task is parsed, it is the DAG of that task alone. Raises :class:`ConfigurationError` where the file
    cannot be read at all; other mistakes are in the DAGs.
    """
    from registry_sync.fleet.loading import load_fleet
    from registry_sync.hooks.settings import load_settings

    settings = load_settings()
    path = fleet_path or settings.fleet_path
    if path is None:
        return {}
    fleet = load_fleet(path, settings.fleet_cache)
    if fleet.is_unreadable:
        raise ConfigurationError("; ".join(map(str, fleet.mistakes)))
    parsed = get_parsing_context().dag_id
    dags = _Dags(fleet, None if fleet_path is None else str(fleet_path), check_dag_id, is_of_task=parsed is not None)
    return dags.made(parsed)


@dataclass(frozen=True)
class _Dags:
    """The DAGs of one fleet; ``path`` is that of their tasks, None for the setting's.

    ``is_of_task`` says that a task parses its own, which has no use for a schedule.
    """

    fleet: Fleet
    path: str | None
    check_dag_id: str
    is_of_task: bool

    def made(self, dag_id: str | None) -> dict[str, DAG]:
        """The DAG of that id, or all for None."""
        makers = dict(self._makers())
        if dag_id is not None:
            makers = {dag_id: makers[dag_id]} if dag_id in makers else {}
        return {name: make() for name, make in makers.items()}

    def _makers(self) -> Iterator[tuple[str, Any]]:
        yield self.check_dag_id, self._check
        if any(map(_promises, self.fleet.documents)):
            yield f"{self.check_dag_id}_freshness", self._freshness
        for group in self.fleet.groups.values():
            yield group.dag_id, partial(self._group, group)
        for document in self.fleet.documents:
            if not document.get("is_batched"):
                repository = str(document["repository"])
                yield mirror_dag_id(repository), partial(self._mirror, repository)
        for repository, mistakes in self.fleet.broken.items():
            yield mirror_dag_id(repository), partial(self._broken, repository, mistakes)

    def _mirror(self, repository: str) -> DAG:
        mirror = self.fleet.mirror(repository)
        callbacks = self._callbacks(repository) if mirror.notifications else {}
        deadlines = self._deadlines([mirror.document()], repository)
        schedule = _schedule(mirror, None if self.is_of_task else repository)
        more = {"params": {"dry_run": _DRY_RUN}, "deadline": deadlines, "schedule": schedule}
        with _dag(mirror, repository, _mirror_text(mirror), callbacks, **more) as dag:
            list_tags = ListMirrorTagsOperator(
                task_id="list_tags",
                repository=repository,
                fleet_path=self.path,
                preview="{{ params.dry_run }}",
                fetch_tasks=FETCH_TASKS,
            )
            add_stages(list_tags, {})
        return dag

    def _group(self, group: MirrorGroup) -> DAG:
        text = f"Syncs the group `{group.name}` of `{self.fleet.path.name}`, several mirrors in a task."
        documents = [document for document in self.fleet.documents if _is_of(group, document)]
        callbacks = self._callbacks() if any(document.get("notifications") for document in documents) else {}
        more = {"deadline": self._deadlines(documents), "schedule": _schedule(group)}
        with _dag(group, f"mirrors: {group.name}", text, callbacks, **more) as dag:
            SyncMirrorGroupOperator.partial(
                task_id="sync_mirrors",
                group=group.name,
                fleet_path=self.path,
                map_index_template=f"{{{{ {MIRRORS_LABEL} }}}}",
            ).expand(part=parts_of(len(group.repositories)))
        return dag

    def _callbacks(self, repository: str | None = None) -> dict[str, Any]:
        """The callbacks of tasks that notify people as the file says; a retry is no failure yet."""
        notify = MirrorNotifier(fleet_path=self.path, repository=repository)
        throttled = MirrorNotifier(on=["throttled"], fleet_path=self.path, repository=repository)
        return {"on_success_callback": notify, "on_failure_callback": notify, "on_retry_callback": throttled}

    def _deadlines(self, documents: Iterable[Mapping[str, Any]], repository: str | None = None) -> list[Any] | None:
        """A deadline for each freshness that somebody is to be notified of; None for none.

        Airflow forgets it when the run succeeds in time.
        """
        seconds = {document["freshness"] for document in documents if _promises(document)}
        if not seconds:
            return None
        # Airflow's stubs lack these names.
        from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback  # type: ignore[attr-defined]

        given = {"fleet_path": self.path, "repository": repository}
        callback = SyncCallback(_PASSED, kwargs={name: value for name, value in given.items() if value is not None})
        reference = DeadlineReference.DAGRUN_QUEUED_AT
        return [
            DeadlineAlert(reference, timedelta(seconds=after), callback, name="freshness") for after in sorted(seconds)
        ]

    def _broken(self, repository: str, mistakes: Sequence[Mistake]) -> DAG:
        with DAG(
            mirror_dag_id(repository),
            dag_display_name=f"{repository} (mistake)",
            description=str(mistakes[0]),
            doc_md=_mistakes_text(mistakes),
            schedule=None,
            catchup=False,
            tags=[_TAG, _MISTAKE_TAG],
        ) as dag:
            CheckFleetOperator(task_id="mistakes", repository=repository, fleet_path=self.path)
        return dag

    def _check(self) -> DAG:
        mistakes = self.fleet.mistakes
        text = f"Checks the files of mirrors, `{self.fleet.path}`."
        with DAG(
            self.check_dag_id,
            description=str(mistakes[0]) if mistakes else "Checks the files that declare mirrors",
            doc_md=f"{text}\n\n{_mistakes_text(mistakes)}" if mistakes else text,
            schedule=None,
            catchup=False,
            is_paused_upon_creation=False,
            tags=[_TAG, *([_MISTAKE_TAG] if mistakes else [])],
        ) as dag:
            CheckFleetOperator(task_id="check", fleet_path=self.path)
        return dag

    def _freshness(self) -> DAG:
        with DAG(
            f"{self.check_dag_id}_freshness",
            description="Notifies of mirrors that are older than promised, also where their runs never start",
            schedule=CronTriggerTimetable(_FRESHNESS_SCHEDULE, timezone="UTC"),
            catchup=False,
            max_active_runs=1,
            is_paused_upon_creation=False,
            tags=[_TAG],
        ) as dag:
            CheckFreshnessOperator(task_id="check_ages", fleet_path=self.path)
        return dag


def _promises(document: Mapping[str, Any]) -> bool:
    """Whether somebody is to be notified when the mirror is older than promised."""
    notified = document.get("notifications", ())
    return bool(document.get("freshness")) and any("stale" in entry["on"] for entry in notified)


def _is_of(group: MirrorGroup, document: Mapping[str, Any]) -> bool:
    return bool(document.get("is_batched")) and document.get("group") == group.name


def _dag(declared: Mirror | MirrorGroup, name: str, text: str, callbacks: Mapping[str, Any], **more: Any) -> DAG:
    """The DAG of a mirror or a group, without tasks."""
    defaults: dict[str, Any] = {
        **TASK_DEFAULTS,
        **callbacks,
        "retry_policy": RegistryRetryPolicy(),
        "priority_weight": declared.priority + 1,
        "weight_rule": "absolute",
    }
    given = {"retries": declared.retries, "pool": declared.pool, "owner": declared.owner}
    defaults |= {key: value for key, value in given.items() if value is not None}
    return DAG(
        declared.dag_id,
        dag_display_name=name,
        description=declared.description,
        doc_md=text,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        tags=_tags(declared),
        default_args=defaults,
        **more,
    )


def _schedule(declared: Mirror | MirrorGroup, repository: str | None = None) -> Any:
    """What starts the runs; with a ``repository`` its name is in their ids."""
    schedule = declared.schedule if declared.is_enabled else None
    if schedule is not None and schedule.asset is not None:
        return [Asset(schedule.asset)]
    if repository is None:
        if schedule is not None and schedule.cron is not None:
            return CronTriggerTimetable(schedule.cron, timezone=schedule.timezone)
        return schedule.interval if schedule is not None else None
    from registry_sync.operators import repository_timetables as of_repository

    if schedule is None:
        return of_repository.RepositoryManualTimetable(repository=repository)
    if schedule.cron is not None:
        return of_repository.RepositoryCronTimetable(schedule.cron, timezone=schedule.timezone, repository=repository)
    return of_repository.RepositoryIntervalTimetable(schedule.interval or timedelta(), repository=repository)


def _tags(declared: Mirror | MirrorGroup) -> list[str]:
    labels = (f"{name}:{value}" if value else name for name, value in sorted(declared.labels.items()))
    group = getattr(declared, "group", None)
    return [_TAG, *([group] if group else []), *(label[:_MAX_TAG] for label in labels)]


def _mirror_text(mirror: Mirror) -> str:
    """What the DAG's page says of a mirror; nothing that changes without the file."""
    source = f"the remote `{mirror.remote_name}`" if mirror.remote is None else f"`{mirror.remote.source}`"
    limits = "" if mirror.remote is None else "".join(f"; {limit}" for limit in mirror.remote.limits())
    return f"Syncs {source} into `{mirror.repository}`{limits}. Declared in `{mirror.place.rpartition(':')[0]}`."


def _mistakes_text(mistakes: Sequence[Mistake]) -> str:
    lines = [f"- `{mistake.file}:{mistake.line}` {mistake.message}" for mistake in mistakes[:_SHOWN_MISTAKES]]
    more = len(mistakes) - len(lines)
    return "\n".join(
        ["**Not synced, as the file has mistakes:**", "", *lines, *([f"- and {more} more"] if more else [])]
    )
