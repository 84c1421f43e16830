"""Changes and deletions below ``container/container/``: done at once, with a task that Pulp's clients wait for."""

from __future__ import annotations

from typing import Any

import pytest

from support.rest_api import ApiServer, RestClient

REPOSITORIES, REMOTES = "repositories/container/container/", "remotes/container/container/"
DISTRIBUTIONS = "distributions/container/container/"


def _ended(admin: RestClient, method: str, path: str, document: Any = None) -> Any:
    """The task of a request, which has ended."""
    response = admin.ask(method, path, document)
    assert response.status_code == 202, response.text
    task = admin.get(response.json()["task"])
    assert (task["state"], task["error"], task["triggered_by"], task["dag_run_id"]) == (
        "completed",
        None,
        "admin",
        None,
    )
    assert task["finished_at"] >= task["started_at"] >= task["pulp_created"]
    return task


@pytest.fixture
def remote(admin: RestClient, name: str) -> Any:
    return admin.post(REMOTES, name=name, url="https://registry.example", upstream_name="library/app")


def test_a_repository_is_changed_and_deleted(admin: RestClient, name: str, remote: Any) -> None:
    made = admin.post(REPOSITORIES, name=name, remote=remote["pulp_href"])
    assert made["pulp_href"].startswith("/pulp/api/v3/repositories/container/container/")
    assert (made["remote"], made["manifest_signing_service"]) == (remote["pulp_href"], None)
    task = _ended(admin, "PATCH", made["pulp_href"], {"description": "ours"})
    assert (task["name"], task["reserved_resources_record"]) == ("registry_sync.update", [made["pulp_href"]])
    changed = admin.get(made["pulp_href"])
    assert (changed["description"], changed["remote"]) == ("ours", remote["pulp_href"])
    # A changed response may be sent back.
    _ended(admin, "PUT", made["pulp_href"], {**changed, "description": None})
    assert admin.get(made["pulp_href"])["description"] is None
    # The documented form knows no remote and leaves it.
    documented = made["pulp_href"].replace("container", "docker")
    admin.put(documented, name=name)
    assert admin.get(made["pulp_href"])["remote"] == remote["pulp_href"]
    _ended(admin, "DELETE", made["pulp_href"])
    assert admin.ask("GET", documented).status_code == 404


def test_a_repository_whose_remote_does_not_exist_is_refused(admin: RestClient, name: str, remote: Any) -> None:
    _ended(admin, "DELETE", remote["pulp_href"])
    assert admin.post(REPOSITORIES, 400, name=name, remote=remote["pulp_href"]).keys() == {"remote"}
    made = admin.post(REPOSITORIES, name=name)
    assert admin.patch(made["pulp_href"], 400, remote=remote["pulp_href"]).keys() == {"remote"}
    refused = admin.post(f"{made['pulp_href']}sync/", 400)
    assert "no remote of its own" in refused["remote"][0]


def test_a_sync_takes_the_repositorys_remote(admin: RestClient, name: str, remote: Any) -> None:
    repository = admin.post(REPOSITORIES, name=name, remote=remote["pulp_href"])["pulp_href"]
    task = admin.get(admin.post(f"{repository}sync/", 202)["task"])
    assert task["state"] == "waiting"
    documented = admin.post(f"{repository.replace('container', 'docker')}sync/", 400)
    assert documented == {"remote": ["This field is required."]}


def test_a_remote_has_the_fields_of_today(admin: RestClient, remote: Any) -> None:
    _ended(admin, "PATCH", remote["pulp_href"], {"includes": ["v*"], "tls_validation": False, "username": "ana"})
    today, documented = admin.get(remote["pulp_href"]), admin.get(remote["pulp_href"].replace("container", "docker"))
    assert (today["includes"], today["include_tags"], today["tls_validation"]) == (["v*"], ["v*"], False)
    assert (documented["whitelist_tags"], documented["ssl_validation"]) == ("v*", False)
    assert today["conn_id"] == documented["conn_id"] is not None
    stored = {field["name"]: field["is_set"] for field in today["hidden_fields"]}
    unset = dict.fromkeys(("client_key", "password", "proxy_password", "proxy_username"), False)
    assert stored == {"username": True, **unset}
    assert "hidden_fields" not in documented
    assert admin.get("remotes/", name=today["name"])["results"] == [today]
    assert not {"username", "password", "client_key", "ssl_validation"} & today.keys()
    etag = admin.ask("GET", remote["pulp_href"]).headers["ETag"]
    assert admin.ask("PUT", remote["pulp_href"], today, headers={"If-Match": etag}).status_code == 202
    assert admin.ask("PUT", remote["pulp_href"], today, headers={"If-Match": '"another"'}).status_code == 412
    assert admin.get(remote["pulp_href"])["includes"] == ["v*"]
    refused = admin.patch(remote["pulp_href"], 400, rate_limit=4)
    assert "requests_per_second" in refused["rate_limit"][0]


def test_a_distribution_is_made_by_a_task(admin: RestClient, name: str, synced: dict[str, str]) -> None:
    repository = synced["repository"].replace("docker", "container")
    task = _ended(admin, "POST", DISTRIBUTIONS, {"name": name, "base_path": name, "repository": repository})
    (made,) = task["created_resources"]
    assert admin.get(made)["repository"] == repository
    _ended(admin, "PATCH", made, {"repository": "", "repository_version": f"{repository}versions/1/"})
    served = admin.get(made)
    assert (served["repository"], served["repository_version"]) == (None, f"{repository}versions/1/")
    _ended(admin, "DELETE", made)
    assert admin.post(DISTRIBUTIONS, 400, name=name, base_path=name, content_guard="/x/").keys() == {"content_guard"}


def test_what_is_refused_makes_no_task(admin: RestClient, api_server: ApiServer, name: str) -> None:
    made = admin.post(REPOSITORIES, name=name)["pulp_href"]
    before = admin.get("tasks/", limit=1)["count"]
    admin.patch(made, 400, name="Not A Name")
    assert api_server.client("viewer").ask("DELETE", made).status_code == 403
    assert admin.get("tasks/", limit=1)["count"] == before


def test_tasks_of_both_kinds_are_one_list(admin: RestClient, name: str, remote: Any) -> None:
    repository = admin.post(REPOSITORIES, name=name, remote=remote["pulp_href"])["pulp_href"]
    first = _ended(admin, "PATCH", repository, {"description": "1"})
    sync = admin.get(admin.post(f"{repository}sync/", 202)["task"])
    last = _ended(admin, "PATCH", repository, {"description": "2"})
    listed = admin.get("tasks/", limit=3)
    expected = [task["pulp_href"] for task in (last, sync, first)]
    assert [task["pulp_href"] for task in listed["results"]] == expected
    singly = [admin.get("tasks/", limit=1, offset=offset)["results"][0]["pulp_href"] for offset in range(3)]
    assert singly == expected
    ended = admin.get("tasks/", limit=2, state="completed", ordering="-finished_at")["results"]
    assert [task["pulp_href"] for task in ended] == [last["pulp_href"], first["pulp_href"]]
    assert first["pulp_href"] not in {task["pulp_href"] for task in admin.get("tasks/", state="failed")["results"]}
    assert admin.patch(last["pulp_href"], 409, state="canceled") == {"detail": "the task has ended: it is completed"}
    assert admin.ask("POST", f"{last['pulp_href']}approve_removals/").status_code == 409
