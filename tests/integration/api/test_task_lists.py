"""Tasks as Pulp's clients look for and remove them, and those that are runs of the DAGs for maintenance."""

from __future__ import annotations

from typing import Any

import pytest

from support.rest_api import ApiServer, RestClient

REPOSITORIES = "repositories/container/container/"


def made(admin: RestClient, path: str, **document: Any) -> Any:
    return admin.get(admin.post(path, 202, **document)["task"])


def hrefs(admin: RestClient, **query: Any) -> set[str]:
    return {task["pulp_href"] for task in admin.get("tasks/", limit=1000, **query)["results"]}


def unpause(dag_id: str, *, is_paused: bool) -> None:
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagModel).filter(DagModel.dag_id == dag_id).update({"is_paused": is_paused})


@pytest.fixture
def tasks(admin: RestClient, synced: dict[str, str], name: str) -> dict[str, Any]:
    """A copy, which is recorded, and a sync, which is a run; the repository of the copy."""
    target = admin.post(REPOSITORIES, name=name)["pulp_href"]
    source = synced["repository"].replace("docker", "container")
    return {
        "target": target,
        "copy": made(admin, f"{target}copy_tags/", source_repository=source),
        "sync": made(admin, f"{synced['remote']}sync/", repository=synced["repository"]),
    }


def test_tasks_of_both_kinds_are_found(admin: RestClient, tasks: dict[str, Any], synced: dict[str, str]) -> None:
    copy, sync = tasks["copy"]["pulp_href"], tasks["sync"]["pulp_href"]
    assert hrefs(admin, reserved_resources=tasks["target"]) == {copy}
    assert copy not in hrefs(admin, reserved_resources=synced["repository"]) >= {sync}
    both = f"{tasks['target']},{synced['remote'].replace('docker', 'container')}"
    assert hrefs(admin, reserved_resources__in=both) >= {copy, sync}
    assert hrefs(admin, pulp_href__in=f"{copy},{sync}") == {copy, sync}
    assert hrefs(admin, prn__in=f"{tasks['copy']['prn']},{tasks['sync']['prn']}") == {copy, sync}
    assert hrefs(admin, logging_cid=tasks["sync"]["logging_cid"]) == {sync}
    assert copy in hrefs(admin, name="registry_sync.copy_tags")
    assert sync not in hrefs(admin, name="registry_sync.copy_tags")
    assert {copy, sync} <= hrefs(admin, name__contains="sync")
    assert sync in hrefs(admin, q="name=registry_sync.sync AND NOT finished_at__lt=2000-01-01")
    assert hrefs(admin, pulp_created__lt="2000-01-01") == set()
    assert hrefs(admin, state="failed", reserved_resources=tasks["target"]) == set()
    assert admin.get("tasks/", 400, reserved_resources="/pulp/").keys() == {"reserved_resources"}
    assert admin.get(copy, fields="state") == {"state": "completed"}


def test_ended_tasks_are_purged(admin: RestClient, tasks: dict[str, Any]) -> None:
    copy, sync = tasks["copy"]["pulp_href"], tasks["sync"]["pulp_href"]
    kept = made(admin, "tasks/purge/")
    assert (kept["name"], kept["state"], kept["result"]["deleted"]) == ("registry_sync.purge", "completed", 0)
    admin.get(copy)
    admin.patch(sync, state="canceled")
    purged = made(admin, "tasks/purge/", finished_before="2999-01-01T00:00:00Z", states=["completed", "canceled"])
    assert purged["result"]["deleted"] >= 2
    admin.get(copy, 404)
    admin.get(sync, 404)
    assert admin.post("tasks/purge/", 400, states=["running"]).keys() == {"states"}
    assert admin.post("tasks/purge/", 400, finished_before="2999-01-01").keys() == {"finished_before"}


def test_orphans_and_repairs_are_runs_of_their_dags(
    admin: RestClient, api_server: ApiServer, synced: dict[str, str]
) -> None:
    task = made(admin, "orphans/cleanup/")
    assert (task["name"], task["state"]) == ("registry_sync.orphan_cleanup", "waiting")
    assert task["dag_run_id"].startswith("registry_sync__")
    assert task["pulp_href"] in hrefs(admin, name="registry_sync.orphan_cleanup")
    admin.patch(task["pulp_href"], state="canceled")
    assert admin.get(task["pulp_href"])["state"] == "canceled"
    for field, value in (("orphan_protection_time", 10), ("content_hrefs", ["/x/"])):
        assert admin.post("orphans/cleanup/", 400, **{field: value}).keys() == {field}
    admin.post("orphans/cleanup/", 202, orphan_protection_time=100_000)
    assert api_server.client("user").ask("POST", "orphans/cleanup/", {}).status_code == 403
    version = f"{synced['repository']}versions/1/"
    unpause("registry_sync_scrub", is_paused=True)
    assert "paused" in admin.post(f"{version}repair/", 503)["detail"]
    unpause("registry_sync_scrub", is_paused=False)
    for path in (f"{version}repair/", f"{version.replace('docker', 'container')}repair/", "repair/"):
        assert made(admin, path, verify_checksums=False)["name"] == "registry_sync.repair"
    admin.post(f"{synced['repository']}versions/99/repair/", 404)
    assert api_server.client("viewer").ask("POST", "repair/", {}).status_code == 403


def test_the_lists_of_all_types_have_the_entries_of_each(admin: RestClient, synced: dict[str, str]) -> None:
    for kind in ("repositories", "remotes", "distributions"):
        one, every = admin.get(f"{kind}/container/container/"), admin.get(f"{kind}/")
        assert (every["count"], every["results"]) == (one["count"], one["results"])
    repository = synced["repository"].replace("docker", "container")
    href = f"{repository}versions/2/"
    (version,) = admin.get("repository_versions/", pulp_href__in=href)["results"]
    assert version == admin.get(href)
    assert admin.get("repository_versions/", prn__in=version["prn"])["results"] == [version]
    assert admin.get("task-groups/") == {"count": 0, "next": None, "previous": None, "results": []}
    admin.get("task-groups/fcf03266-f0e4-4497-8434-0fe9d94c8053/", 404)


def test_all_content_is_one_list(admin: RestClient, synced: dict[str, str]) -> None:
    version = f"{synced['repository']}versions/1/"
    counts = [
        admin.get(f"content/container/{kind}/", repository_version=version)["count"]
        for kind in ("blobs", "manifests", "tags")
    ]
    whole = admin.get("content/", repository_version=version)
    assert whole["count"] == len(whole["results"]) == sum(counts)
    kinds = [entry["pulp_href"].split("/")[-3] for entry in whole["results"]]
    assert kinds == ["blobs"] * counts[0] + ["manifests"] * counts[1] + ["tags"] * counts[2]
    singly = [
        admin.get("content/", repository_version=version, limit=1, offset=offset)["results"][0]
        for offset in range(sum(counts))
    ]
    assert singly == whole["results"]
    wanted = [whole["results"][0], whole["results"][-1]]
    found = admin.get("content/", pulp_href__in=",".join(entry["pulp_href"] for entry in wanted))
    assert found["results"] == wanted
    assert admin.get("content/", prn__in=wanted[1]["prn"])["results"] == [wanted[1]]
    assert admin.get("content/", 400, repository_version="x").keys() == {"repository_version"}
