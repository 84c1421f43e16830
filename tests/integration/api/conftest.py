"""The whole API server in this process: Airflow's app with the plugin mounted, SimpleAuthManager, four users."""

from __future__ import annotations

import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from local_airflow.launch import serve_newest_versions_alone
from registry_sync.db.database import Database
from support.metadata import Upstream, image, index, sync
from support.rest_api import DAG_ID, ROLES, ApiServer, RestClient, served


@pytest.fixture(scope="session")
def _settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("api")
    return {
        "AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'registry_sync.db'}",
        "AIRFLOW__REGISTRY_SYNC__BLOB_STORE": (folder / "blobs").as_uri(),
        "AIRFLOW__REGISTRY_SYNC__PULL_IN_API_SERVER": "True",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
    }


@contextmanager
def _in_force(settings: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def _running_server(_home_with_database: Path, _settings: dict[str, str]) -> Iterator[ApiServer]:
    with ExitStack() as closing:
        with _in_force(_settings), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of Airflow's own code are not ours to mend
            from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app

            _forget_apps()
            closing.callback(_forget_apps)
            serve_newest_versions_alone()
            app = create_app()
            closing.callback(purge_cached_app)
            _store_dag()
            database = Database.connect(_settings["AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN"])
            closing.callback(database.close)
            database.ready()
            url = closing.enter_context(served(app))
            tokens = {role: _token(get_auth_manager(), role) for role in ROLES}
        yield ApiServer(url, tokens, database)


@pytest.fixture(scope="module")
def api_server(_running_server: ApiServer, _settings: dict[str, str]) -> Iterator[ApiServer]:
    """The server, started once; its settings are in the environment only while these tests run."""
    with _in_force(_settings):
        yield _running_server


def _forget_apps() -> None:
    """Airflow asks a plugin for its apps once in a process; these settings say which they are."""
    from airflow import plugins_manager

    plugins_manager.get_fastapi_plugins.cache_clear()
    for plugin in plugins_manager._get_plugins()[0]:
        vars(plugin).pop("fastapi_apps", None)


def _token(auth_manager: object, role: str) -> str:
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token: str = auth_manager.generate_jwt(SimpleAuthManagerUser(username=role, role=role.upper()))  # type: ignore[attr-defined]
    return token


def _store_dag() -> None:
    """Stores the sync DAG as the DAG processor does, unpaused."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(DagBag(), "dags-folder", None)
    with create_session() as session:
        unpaused = DagModel.dag_id.in_([DAG_ID, "registry_sync_scrub"])
        session.query(DagModel).filter(unpaused).update({"is_paused": False})


@pytest.fixture
def admin(api_server: ApiServer) -> RestClient:
    return api_server.client()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, as a repository may have it."""
    return f"{re.sub('[^a-z0-9]+', '-', request.node.name.lower())[:100].rstrip('-')}-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def synced(api_server: ApiServer) -> dict[str, str]:
    """A repository with a version that has every type of unit, added and removed; paths."""
    admin, name = api_server.client(), f"synced-{secrets.token_hex(4)}"
    repository = admin.post("repositories/docker/docker/", name=name)
    given = {"url": "https://registry.example", "upstream_name": "library/app", "password": "hunter22"}
    remote = admin.post("remotes/docker/docker/", name=name, **given)
    record = api_server.database.repositories.by_name(name)
    upstream, source = Upstream(), api_server.database.remotes.by_name(name)
    child = image("a layer", note=name)
    upstream.tag("index", index(child, note=name), child)
    sync(api_server.database, record, upstream, remote=source)
    upstream.tag("index", image("another layer", note=name))
    sync(api_server.database, record, upstream, remote=source)
    task = admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"])["task"]
    return {"repository": repository["pulp_href"], "remote": remote["pulp_href"], "task": task, "name": name}
