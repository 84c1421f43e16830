"""What all five operators share: the run they belong to, what they work on, and how errors reach Airflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from registry_sync.errors import RegistrySyncError

if TYPE_CHECKING:
    from registry_sync.blobs import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.records import RemoteSpec
    from registry_sync.domain.runs import RunKey, SyncRun
    from registry_sync.hooks.settings import Settings
    from registry_sync.oci.client import RegistryClient

#: The XCom key under which ``list_tags`` hands on the id of the sync run.
SYNC_RUN_KEY = "sync_run"
#: The template by which the other stages receive it.
SYNC_RUN_TEMPLATE = "{{ ti.xcom_pull(task_ids='list_tags', key='sync_run') }}"


@dataclass
class Stage:
    """The parts one task works on, opened when first used and closed when the task ends."""

    settings: Settings
    closing: ExitStack

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

    def client(self, remote: RemoteSpec) -> RegistryClient:
        """A client of the remote's registry, with the credentials of its connection."""
        from registry_sync.hooks.registry import RegistryHook

        hook = RegistryHook(remote=remote)
        return self.closing.enter_context(hook.get_client())

    def run(self, sync_run: str | None) -> SyncRun:
        """The run of that id. Raises :class:`~registry_sync.errors.RecordNotFound`."""
        return self.database.runs.get(sync_run or "")


@contextmanager
def open_stage() -> Iterator[Stage]:
    """The parts of a stage; what it raises becomes what Airflow acts on.

    A temporary error goes through as it is, so that the task is tried again; any other one becomes
    ``AirflowFailException``, because trying again would not help. Both keep the message.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from registry_sync.hooks.settings import load_settings

    try:
        with ExitStack() as closing:
            yield Stage(load_settings(), closing)
    except RegistrySyncError as error:
        if error.is_temporary:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def run_key(context: Mapping[str, Any]) -> RunKey:
    """The key of the Airflow run that a task belongs to."""
    from registry_sync.domain.runs import RunKey

    return RunKey(dag_id=context["ti"].dag_id, run_id=context["ti"].run_id)


def is_last_try(context: Mapping[str, Any]) -> bool:
    """Whether Airflow will not try this task again."""
    ti = context["ti"]
    return bool(ti.try_number > ti.max_tries)


def as_list(value: object) -> tuple[str, ...] | None:
    """A template's text, ``a, b``, or a list, as a tuple; None for nothing.

    A template field gives text; tags and globs hold no commas.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected text with commas or a list, got {type(value).__name__}")
    entries = tuple(str(entry).strip() for entry in value if str(entry).strip())
    return entries or None


def as_text(value: object) -> str | None:
    """A template's text without blanks around it; None when nothing is left, or for ``None``."""
    text = "" if value is None else str(value).strip()
    return None if text in ("", "None") else text
