"""The REST API on a database that is kept as data, without a server: what it responds with to every read.

Everybody may read here; who may do what is tested elsewhere.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from registry_sync.api.access import AccessCheck
from registry_sync.api.app import create_app
from registry_sync.hooks.dag_runs import CANCELED_NOTE
from support.golden.make import DAG_ID, TASKS
from support.rest_api import API, hrefs_in

FOLDER = Path(__file__).parent / "golden"
_NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
#: States of the DAG runs of tasks in Airflow.
_STATES = {
    "waiting": "queued",
    "running": "running",
    "completed": "success",
    "failed": "failed",
    "canceled": "failed",
    "refused": "failed",
    "stopped": "failed",
}
_NOWHERE = "fcf03266-f0e4-4497-8434-0fe9d94c8053"
_DIGEST = f"sha256:{'0' * 64}"
#: Lists with every filter and order, pages, and what cannot be read; the rest is found by following paths.
ASKED = (
    "repositories/docker/docker/",
    "repositories/docker/docker/?limit=2",
    "repositories/docker/docker/?name=kept",
    "repositories/docker/docker/?name__in=kept, tasks,nobody&ordering=-name",
    "repositories/docker/docker/?name__icontains=P&ordering=-pulp_created&limit=1",
    "repositories/docker/docker/?name__icontains=p&ordering=-pulp_created&limit=1&offset=1",
    "repositories/docker/docker/?ordering=pulp_last_updated&offset=90",
    "repositories/docker/docker/?ordering=nonsense",
    "repositories/docker/docker/?nonsense=1&limit=0",
    "remotes/docker/docker/",
    "remotes/docker/docker/?name=full&ordering=name",
    "remotes/docker/docker/?name__in=full,plain&ordering=-pulp_last_updated&limit=1",
    "remotes/docker/docker/?name__icontains=L&ordering=pulp_created",
    "remotes/docker/docker/?name__icontains=%25",
    "remotes/docker/docker/?limit=1001",
    "tasks/",
    "tasks/?state=failed&limit=1",
    "tasks/?state=failed&limit=1&offset=1",
    "tasks/?state__in=completed,%20canceled&ordering=started_at",
    "tasks/?state=failed&state__in=completed",
    "tasks/?ordering=-finished_at",
    "tasks/?ordering=pulp_created",
    "tasks/?state=nonsense",
    "tasks/?state__in=nonsense",
    "content/docker/blobs/",
    "content/docker/blobs/?ordering=-size&limit=3",
    "content/docker/blobs/?media_type=application/vnd.oci.image.config.v1%2Bjson&ordering=-digest",
    "content/docker/blobs/?ordering=pulp_created&offset=5&limit=2",
    f"content/docker/blobs/?digest={_DIGEST}",
    "content/docker/blobs/?digest=nonsense",
    "content/docker/manifests/",
    "content/docker/manifests/?ordering=media_type&limit=4",
    "content/docker/manifests/?media_type__in=application/vnd.oci.image.index.v1%2Bjson,x&ordering=size",
    f"content/docker/manifests/?digest__in={_DIGEST},{_DIGEST}",
    "content/docker/manifests/?repository_version=nonsense",
    f"content/docker/manifests/?repository_version={API}/repositories/docker/docker/{_NOWHERE}/versions/1/",
    f"content/docker/tags/?repository_version=a&repository_version_added={API}/",
    "content/docker/tags/",
    "content/docker/tags/?name=latest&ordering=-pulp_created",
    "content/docker/tags/?name__in=v1,v2&ordering=-digest&limit=1",
    "content/docker/tags/?name__icontains=HELD",
    "content/docker/tags/?ordering=size",
    f"repositories/docker/docker/{_NOWHERE}/",
    f"repositories/docker/docker/{_NOWHERE}/usage/",
    f"repositories/docker/docker/{_NOWHERE}/versions/",
    f"repositories/docker/docker/{_NOWHERE}/versions/1/",
    f"repositories/docker/docker/{_NOWHERE}/versions/0/",
    f"remotes/docker/docker/{_NOWHERE}/",
    "remotes/docker/docker/nonsense/",
    f"tasks/{_NOWHERE}/",
    "content/docker/blobs/999999/",
    "content/docker/manifests/999999/provenance/",
    "content/docker/tags/x/",
    "syncs/",
    "syncs/?state=failed&limit=1&offset=1",
    "syncs/?state__in=completed,unchanged&ordering=finished_at&limit=2",
    f"syncs/?repository={API}/repositories/docker/docker/{_NOWHERE}/",
    f"syncs/?remote={API}/repositories/docker/docker/{_NOWHERE}/",
    "syncs/?state=waiting",
    f"syncs/{_NOWHERE}/",
)
_OF_A_VERSION = (
    "diff/",
    "diff/?base=0&limit=2",
    "diff/?base=999",
    "holds/",
    "holds/?limit=20&offset=20",
    "missing_manifests/",
    "provenance/",
)
_REPOSITORY = re.compile(rf"{API}/repositories/docker/docker/[0-9a-f-]{{36}}/")
_VERSION = re.compile(rf"{_REPOSITORY.pattern}versions/[0-9]+/")
_VERSIONS = re.compile(rf"{_REPOSITORY.pattern}versions/")
_WITH_PROVENANCE = re.compile(rf"{API}/content/docker/(?:blobs|manifests)/[0-9]+/")


def load_database(file: Path) -> None:
    """Writes the kept database into ``file``, at the revision that it has."""
    with sqlite3.connect(file) as connection:
        connection.executescript((FOLDER / "database.sql").read_text(encoding="utf-8"))
    connection.close()


def store_dag_runs() -> None:
    """Stores the DAG runs of the kept tasks in Airflow's database."""
    from airflow.models import DagRun
    from airflow.models.dagrun import DagRunNote
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunType

    with create_session() as session:
        for number, (name, task) in enumerate(TASKS.items()):
            state, at = _STATES[name], _NOON + timedelta(minutes=number)
            run = DagRun(
                dag_id=DAG_ID,
                run_id=f"registry_sync__{task}",
                run_type=DagRunType.MANUAL,
                run_after=at,
                start_date=None if state == "queued" else at + timedelta(seconds=1.5),
                triggering_user_name=None if name == "waiting" else "erin",
                state=DagRunState(state),
            )
            run.end_date = at + timedelta(seconds=90 - number) if state in ("success", "failed") else None
            session.add(run)
            session.flush()
            if name == "canceled":
                run.dag_run_note = DagRunNote(content=CANCELED_NOTE)  # type: ignore[no-untyped-call]


def app_on(database: Any) -> FastAPI:
    """The app on that database, open to everybody; it is one app, made once, and so on one database at a time."""
    app = _open_app()
    app.state.parts = database
    return app


@cache
def _open_app() -> FastAPI:
    app = create_app()
    for route in app.routes:
        if isinstance(route, APIRoute):
            for dependency in route.dependant.dependencies:
                if isinstance(dependency.call, AccessCheck):
                    app.dependency_overrides[dependency.call] = _nobody
    return app


async def _nobody() -> None:
    """In place of who asks."""


def every_response(app: FastAPI) -> Iterator[tuple[str, int, str]]:
    """Path, status and body of every read, from the lists on to whatever their entries lead to, in a fixed order."""
    client = TestClient(app, headers={"Authorization": "Bearer x"}, raise_server_exceptions=False)
    waiting = [f"{API}/{path}" for path in ASKED]
    found = dict.fromkeys(waiting)
    while waiting:
        path = waiting.pop(0)
        response = client.get(path.removeprefix("/pulp"))
        yield path, response.status_code, response.text
        following = [*hrefs_in(response.json()), *_more(path)]
        waiting += [href for href in dict.fromkeys(following) if href not in found]
        found |= dict.fromkeys(following)


def _more(path: str) -> list[str]:
    """What can be read of a path and stands in no document."""
    if _VERSION.fullmatch(path):
        return [f"{path}{more}" for more in _OF_A_VERSION]
    if _VERSIONS.fullmatch(path):
        return [f"{path}?ordering=number&limit=1", f"{path}?ordering=-pulp_created", f"{path}?ordering=name"]
    if _REPOSITORY.fullmatch(path):
        return [f"{path}usage/"]
    return [f"{path}provenance/"] if _WITH_PROVENANCE.fullmatch(path) else []
