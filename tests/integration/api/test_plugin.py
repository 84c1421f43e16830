"""The API as a part of Airflow's API server."""

from __future__ import annotations

from support.rest_api import API, ApiServer, RestClient


def test_airflow_lists_the_plugin_with_its_app(admin: RestClient) -> None:
    """Airflow leaves out a plugin that it cannot describe."""
    plugins = {plugin["name"]: plugin for plugin in admin.get("/api/v2/plugins")["plugins"]}
    assert [app["url_prefix"] for app in plugins["registry_sync"]["fastapi_apps"]] == ["/pulp"]
    assert admin.get("/api/v2/plugins/importErrors")["total_entries"] == 0


def test_airflow_s_own_pages_and_api_are_left_alone(api_server: ApiServer, admin: RestClient) -> None:
    assert admin.get("/api/v2/version")["version"].startswith("3.")
    assert api_server.client(None).ask("GET", "/").status_code == 200


def test_status_says_what_runs_here(admin: RestClient) -> None:
    status = admin.get("status/")
    assert [entry["package"] for entry in status["versions"]] == ["registry-sync", "apache-airflow"]
    assert status["database_connection"] == {"connected": True, "detail": None}
    assert status["sync_dag"] == {"dag_id": "registry_sync", "is_known": True, "is_paused": False}


def test_a_large_answer_is_compressed_on_its_way(admin: RestClient) -> None:
    answer = admin.ask("GET", f"{API}/docs/api.json")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["info"]["title"] == "registry-sync"
