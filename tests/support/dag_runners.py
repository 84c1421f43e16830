"""Ways to run what the DAG runs, alike to a test: by a real scheduler, and by its stages in the process of the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest

from registry_sync.db.database import Database
from registry_sync.hooks.clients import open_client
from registry_sync.hooks.stores import open_blob_store
from support.airflow_instance import AirflowInstance
from support.held import Held
from support.syncing import Installation


class Runner(Protocol):
    """``connect`` makes an Airflow connection, ``sync`` gives the states of the tasks of a run that has ended well.

    ``held`` reads back what the installation has of a repository.
    """

    def connect(self, conn_id: str, connection: dict[str, Any]) -> None: ...
    def sync(self, **conf: Any) -> dict[str, str]: ...
    def held(self, repository: str) -> Held: ...


class Scheduled:
    """Through Airflow's REST API, scheduler and processes."""

    def __init__(self, airflow: AirflowInstance) -> None:
        self._airflow = airflow

    def connect(self, conn_id: str, connection: dict[str, Any]) -> None:
        document = {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}
        self._airflow.api("POST", "/connections", document)

    def sync(self, **conf: Any) -> dict[str, str]:
        return self._airflow.task_states(self._airflow.sync(**conf))

    def held(self, repository: str) -> Held:
        home = self._airflow.home / "registry_sync"
        with _closing(Database.connect(f"sqlite:///{home / 'registry_sync.db'}")) as database:
            return Held.read(database, open_blob_store((home / "blobs").as_uri()), repository)


class InStages:
    """By the stages of the DAG one after the other, with the client that its tasks make of the connection."""

    def __init__(self, here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
        self._here = here
        self._here.has_tasks = True
        self._monkeypatch = monkeypatch

    def connect(self, conn_id: str, connection: dict[str, Any]) -> None:
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    def sync(self, **conf: Any) -> dict[str, str]:
        states: dict[str, str] = {}
        if "tags" in conf:
            conf["include_tags"] = conf.pop("tags")  # as the DAG passes it on
        self._here.sync(**conf, client=open_client, before=lambda stage, _run: states.update({stage: "success"}))
        return states

    def held(self, repository: str) -> Held:
        return Held.read(self._here.database, self._here.store, repository)


def is_unchanged(states: dict[str, str]) -> bool:
    """Whether a run ended after it had listed the tags."""
    return {task: state for task, state in states.items() if state != "skipped"} == {"list_tags": "success"}


@contextmanager
def _closing(database: Database) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.close()
