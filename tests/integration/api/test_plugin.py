"""The API as a part of Airflow's API server."""

from __future__ import annotations

import os
from typing import Any

import pytest
import requests

from registry_sync import __version__
from registry_sync.api.dependencies import OpenedDatabase
from registry_sync.db.database import Database
from support.rest_api import API, ApiServer, RestClient


def test_airflow_lists_the_plugin_with_its_app(admin: RestClient) -> None:
    """Airflow leaves out a plugin that it cannot describe."""
    plugins = {plugin["name"]: plugin for plugin in admin.get("/api/v2/plugins")["plugins"]}
    assert [app["url_prefix"] for app in plugins["registry_sync"]["fastapi_apps"]] == ["/pulp", "/v2"]
    assert admin.get("/api/v2/plugins/importErrors")["total_entries"] == 0


def test_a_run_that_is_started_as_the_form_does_it_has_the_repository_in_its_id(
    api_server: ApiServer, name: str
) -> None:
    def start(role: str | None, dag_id: str, **more: Any) -> requests.Response:
        asked = {"conf": {"repository": name, "remote": "none"}, "logical_date": None, "dag_run_id": None, **more}
        return api_server.client(role).ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", asked)

    started = start("user", "registry_sync", note="by hand")
    assert started.status_code == 200, started.text
    run = started.json()
    assert run["dag_run_id"].startswith(f"sync__{name[:80]}__20")
    assert (run["run_type"], run["triggered_by"], run["triggering_user_name"]) == ("manual", "rest_api", "user")
    assert (run["conf"]["repository"], run["note"]) == (name, "by hand")
    assert start("admin", "registry_sync", dag_run_id=name).json()["dag_run_id"] == name
    assert start("admin", "registry_sync_collect", conf={}).json()["dag_run_id"].startswith("manual__")
    # What Airflow refuses it still refuses, in its own words.
    assert start(None, "registry_sync").status_code == 401
    assert start("viewer", "registry_sync").status_code == 403
    assert "repository" in start("admin", "registry_sync", conf={"remote": "none"}).json()["detail"]
    assert start("admin", "registry_sync", unknown=1).status_code == 422
    refused = start("admin", "registry_sync", conf={"repository": name, "mode": "no such"})
    assert (refused.status_code, "mode" in refused.json()["detail"]) == (400, True)


def test_airflow_s_own_pages_and_api_are_left_alone(api_server: ApiServer, admin: RestClient) -> None:
    assert admin.get("/api/v2/version")["version"].startswith("3.")
    assert api_server.client(None).ask("GET", "/").status_code == 200


def test_status_says_what_runs_here(admin: RestClient) -> None:
    status = admin.get("status/")
    shown = {entry["component"]: entry for entry in status["versions"]}
    assert list(shown) == ["core", "container", "docker", "airflow"]
    assert (shown["docker"]["version"], shown["airflow"]["package"]) == (__version__, "apache-airflow")
    # What Pulp's clients compare with the document that they keep.
    described = admin.get("docs/api.json")["info"]["x-pulp-app-versions"]
    assert {name: entry["version"] for name, entry in shown.items()} == described
    assert status["online_workers"] == status["missing_workers"] == []
    (here,) = status["online_api_apps"]
    assert here["name"].startswith(f"{os.getpid()}@")
    assert [part["name"] for part in status["online_content_apps"]] == [here["name"]]
    space = status["storage"]
    assert space["total"] >= space["used"] + space["free"] > 0
    assert (status["redis_connection"], status["domain_enabled"]) == ({"connected": False}, False)
    assert status["database_connection"] == {"connected": True, "detail": None}
    assert status["sync_dag"] == {"dag_id": "registry_sync", "is_known": True, "is_paused": False}


def test_a_large_response_is_compressed_on_its_way(admin: RestClient) -> None:
    response = admin.ask("GET", f"{API}/docs/api.json")
    assert response.headers["content-encoding"] == "gzip"
    assert response.json()["info"]["title"] == "registry-sync"


def replace_parts(monkeypatch: pytest.MonkeyPatch, parts: OpenedDatabase) -> None:
    """Has the running app work on other parts, until the end of the test."""
    from airflow.plugins_manager import get_fastapi_plugins

    app = next(entry["app"] for entry in get_fastapi_plugins()[0] if entry["url_prefix"] == "/pulp")
    monkeypatch.setitem(app.state._state, "parts", parts)


def test_a_database_that_does_not_respond_is_reported_and_no_defect(
    admin: RestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable(OpenedDatabase):
        def database(self) -> Database:
            return Database.connect("postgresql://joe:do-not-tell@127.0.0.1:1/none")

    replace_parts(monkeypatch, Unreachable())
    for path in ("repositories/docker/docker/", "content/docker/tags/", "tasks/"):
        response = admin.ask("GET", path)
        assert (response.status_code, list(response.json())) == (503, ["detail"])
        assert "do-not-tell" not in response.text
    connection = admin.get("status/")["database_connection"]
    assert connection["connected"] is False
    assert "database" in connection["detail"]


def test_a_defect_is_reported_without_more_than_where_to_look(
    admin: RestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(OpenedDatabase):
        def database(self) -> Database:
            raise KeyError("do-not-tell")

    replace_parts(monkeypatch, Broken())
    response = admin.ask("GET", "repositories/docker/docker/")
    assert (response.status_code, list(response.json())) == (500, ["detail"])
    assert "do-not-tell" not in response.text
