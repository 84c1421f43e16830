"""Mirrors: declared pairs of a repository and a remote, with a schedule and rules, as a file says them.

A mirror is a value that was checked when the file was read. It holds plain JSON values and makes the
:class:`~registry_sync.domain.remote.RemoteSpec` when it is asked for it, so that ten thousand of them are read in no
time where only their names are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum
from functools import cached_property
from typing import Any

from registry_sync.domain.mirror_states import NotifiedOf
from registry_sync.domain.records import SyncMode
from registry_sync.domain.remote import RemoteSpec

#: Airflow's own limit of a DAG's id.
MAX_DAG_ID = 250


@dataclass(frozen=True)
class Notification:
    """``conn_id`` is the Airflow connection that a notification goes to when one of ``on`` happens."""

    on: tuple[NotifiedOf, ...]
    conn_id: str


@dataclass(frozen=True)
class Publication:
    """The distribution that clients pull a mirror from; ``is_private`` asks for a login."""

    base_path: str
    is_private: bool = True


@dataclass(frozen=True)
class Retention:
    """How many of the newest versions are kept, and for how many days; what either keeps stays. None: says nothing."""

    versions: int | None = None
    days: int | None = None


@dataclass(frozen=True)
class MirrorSchedule:
    """When a mirror is synced: exactly one of ``cron``, ``interval`` and ``asset`` is set.

    ``cron`` has five fields, in ``timezone``, or is a preset such as ``@daily``; the mirror's own part of a spread is
    in it. ``interval`` counts from run to run. ``asset`` is a URI.
    """

    cron: str | None = None
    interval: timedelta | None = None
    asset: str | None = None
    timezone: str = "UTC"


@dataclass(frozen=True)
class Mistake:
    """A mistake in a file: where it is, what it is, and what was expected; ``repository`` is the mirror that it hurts.

    ``line`` counts from 1, 0 means the file as a whole. ``repository`` None hurts no mirror that is known.
    """

    file: str
    line: int
    message: str
    repository: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


@dataclass(frozen=True)
class Mirror:
    """One mirror, with what its group and the defaults say.

    ``repository`` is its identity. ``remote_name`` is the remote that it syncs from: one of its own, of the
    repository's name and described by ``remote_document``, or one that exists and is used as it is, when that is None.
    ``place`` is the file and line, for messages.

    ``schedule`` None is for syncs by hand. ``group`` is the group in the file, and ``is_batched`` whether one DAG syncs
    the whole group. ``retries`` None leaves it to the DAG; ``pool`` None is Airflow's default pool. A mirror of a
    higher ``priority`` goes first. ``freshness`` is how old the last successful sync may be; None for any age.
    """

    repository: str
    remote_name: str
    remote_document: Mapping[str, Any] | None = None
    place: str = ""
    mode: SyncMode = SyncMode.MIRROR
    replaces_upstream: bool = False
    group: str | None = None
    is_batched: bool = False
    is_enabled: bool = True
    schedule: MirrorSchedule | None = None
    retries: int | None = None
    pool: str | None = None
    priority: int = 0
    retention: Retention | None = None
    owner: str | None = None
    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    publication: Publication | None = None
    freshness: timedelta | None = None
    notifications: tuple[Notification, ...] = ()

    @cached_property
    def remote(self) -> RemoteSpec | None:
        """The remote that the file describes; None for one that exists and is named."""
        return None if self.remote_document is None else RemoteSpec.of_document(self.remote_document)

    @property
    def dag_id(self) -> str:
        """The DAG of this mirror, ``mirror.library.alpine``, or of its group, ``mirrors.base``."""
        return group_dag_id(self.group) if self.is_batched and self.group else mirror_dag_id(self.repository)

    def document(self) -> dict[str, Any]:
        """JSON values of the fields that differ from their defaults: what :meth:`of_document` reads."""
        return {
            known.name: _plain(value)
            for known in fields(self)
            if (value := getattr(self, known.name)) not in (_DEFAULTS[known.name], None)
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Mirror:
        """The mirror of a :meth:`document`; nothing is checked again."""
        read = dict(document)
        for name in _READERS.keys() & read.keys():
            read[name] = _READERS[name](read[name])
        return cls(**read)


@dataclass(frozen=True)
class MirrorGroup:
    """A group that one DAG syncs: ``repositories`` are those of its enabled mirrors, the highest priority first,
    then those declared first.

    The other fields are as those of a :class:`Mirror`, and say how the DAG runs.
    """

    name: str
    repositories: tuple[str, ...] = ()
    is_enabled: bool = True
    schedule: MirrorSchedule | None = None
    retries: int | None = None
    pool: str | None = None
    priority: int = 0
    owner: str | None = None
    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def dag_id(self) -> str:
        """``mirrors.base``."""
        return group_dag_id(self.name)

    @classmethod
    def of_document(cls, document: Mapping[str, Any], repositories: tuple[str, ...]) -> MirrorGroup:
        """The group of a document, as :meth:`Mirror.of_document`."""
        schedule = document.get("schedule")
        read = None if schedule is None else _schedule(schedule)
        return cls(**{**document, "schedule": read, "repositories": repositories})


def mirror_dag_id(repository: str) -> str:
    """``mirror.library.alpine`` for ``library/alpine``: one id for each name, as a dot in a name becomes two.

    A name that is too long for Airflow ends in a hash.
    """
    dag_id = f"mirror.{repository.replace('.', '..').replace('/', '.')}"
    if len(dag_id) <= MAX_DAG_ID:
        return dag_id
    import hashlib

    return f"{dag_id[: MAX_DAG_ID - 17]}-{hashlib.sha256(repository.encode()).hexdigest()[:16]}"


def group_dag_id(group: str) -> str:
    """``mirrors.base``: the DAG of a group that is synced as a batch."""
    return f"mirrors.{group}"


_DEFAULTS = {
    known.name: known.default_factory() if callable(known.default_factory) else known.default
    for known in fields(Mirror)
}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return {known.name: _plain(getattr(value, known.name)) for known in fields(value)}
    return value


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _schedule(value: Mapping[str, Any]) -> MirrorSchedule:
    return MirrorSchedule(**{**value, "interval": _seconds(value.get("interval"))})


def _notifications(value: list[Mapping[str, Any]]) -> tuple[Notification, ...]:
    return tuple(Notification(tuple(map(NotifiedOf, entry["on"])), entry["conn_id"]) for entry in value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "mode": SyncMode,
    "schedule": _schedule,
    "retention": lambda value: Retention(**value),
    "publication": lambda value: Publication(**value),
    "freshness": _seconds,
    "notifications": _notifications,
}
