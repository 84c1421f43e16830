"""The DAG ``registry_sync`` in this process: what its parameters do, what its tasks hand on and skip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry_sync.domain.platforms import parse_platforms
from registry_sync.hooks.stores import open_database
from support.filling import place, push
from support.registry import PASSWORD, USERNAME, RegistryServer
from support.shapes import documented_example, every_kind, many_tags, wide

if TYPE_CHECKING:
    from support.dag_runs import InProcessSync


def counts(version: dict[str, Any] | None, part: str) -> dict[str, int]:
    assert version is not None
    return {kind: unit["count"] for kind, unit in version["content_summary"][part].items()}


def test_a_small_run_ends_in_two_tasks_and_hands_on_counts(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    push(registry, "library/hello-world", documented_example())
    run = sync_in_process(repository="small", url=registry.url, upstream_name="library/hello-world")
    assert run.state == "success"
    assert run.tasks == {
        "list_tags": "success",
        "fetch_manifests": "skipped",
        "plan_blobs": "skipped",
        "fetch_blobs": "skipped",
        "commit_version": "success",
    }
    assert counts(run.version, "present") == {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    fetched = run.xcom("list_tags", key="fetched")
    assert (fetched["tag_count"], fetched["manifest_count"], fetched["fetched_count"]) == (8, 21, 31)
    assert run.xcom("list_tags")[0]["label"] == "8 tags"


def test_lists_never_travel_between_tasks(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    """What a task hands on stays small, whatever the repository holds: the names and digests of its tags are 30 kB."""
    place(registry, "many", many_tags(tags=400, images=20))
    run = sync_in_process(repository="many", url=registry.url, upstream_name="many")
    assert counts(run.version, "present")["docker.tag"] == 400
    returned = [
        run.xcom("list_tags"),
        run.xcom("list_tags", key="summary"),
        run.xcom("list_tags", key="fetched"),
        run.xcom("commit_version"),
    ]
    assert max(len(json.dumps(value)) for value in returned) < 3000


def test_the_usage_of_the_run_is_the_requests_of_the_registry(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    push(registry, "noted", documented_example())
    registry.reset_counts()
    run = sync_in_process(repository="noted", url=registry.url, upstream_name="noted")
    with open_database() as database:
        usage = database.runs.get(run.xcom("list_tags", key="sync_run")).usage
    log = registry.log()
    assert usage.head_count == log.manifest_head_count == 8
    assert usage.manifest_get_count == log.manifest_get_count == 21
    assert usage.blob_get_count == log.blob_get_count == 31
    assert usage.tag_page_count == log.tag_page_count == 1


def test_nothing_changed_skips_everything_after_the_first_task(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    push(registry, "same", documented_example())
    conf = {"repository": "same", "url": registry.url, "upstream_name": "same"}
    first = sync_in_process(**conf)
    second = sync_in_process(**conf)
    assert second.state == "success"
    assert {task: state for task, state in second.tasks.items() if state != "skipped"} == {"list_tags": "success"}
    assert second.version is None
    assert second.xcom("list_tags", key="summary")["unchanged_version"] == first.version


def test_the_parameters_of_the_form_reach_the_remote(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    push(registry, "kinds", every_kind())
    run = sync_in_process(
        repository="form",
        remote="a-name-of-its-own",
        url=registry.url,
        upstream_name="kinds",
        tags=["oci-*", "docker-image"],
        exclude_tags=["oci-index"],
        policy="on_demand",
        mode="additive",
        download_concurrency=3,
        ssl_validation="false",
        platforms=["linux/amd64", "linux/arm/v7"],
        include_referrers="false",
    )
    assert counts(run.version, "present")["docker.tag"] == 2
    with open_database() as database:
        spec = database.remotes.by_name("a-name-of-its-own").spec
    assert spec.include_tags == ("oci-*", "docker-image")
    assert spec.exclude_tags == ("oci-index",)
    assert spec.platforms == parse_platforms(["linux/amd64", "linux/arm/v7"])
    assert spec.include_referrers is False
    assert (spec.policy.value, spec.download_concurrency, spec.ssl_validation) == ("on_demand", 3, False)
    assert registry.log().blob_get_count == 2, "the configs"


def test_an_existing_remote_is_used_by_name_and_overrides_last_for_one_run(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    push(registry, "byname", documented_example())
    sync_in_process(repository="one", remote="shared", url=registry.url, upstream_name="byname", tags=["v1"])
    other = sync_in_process(repository="two", remote="shared")
    assert counts(other.version, "present")["docker.tag"] == 1
    narrowed = sync_in_process(repository="three", remote="shared", tags=["v2", "v3"])
    assert counts(narrowed.version, "present")["docker.tag"] == 2
    with open_database() as database:
        assert database.remotes.by_name("shared").spec.include_tags == ("v1",)


def test_additive_keeps_what_is_gone_upstream(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    content = wide(0.01, tags=3)
    push(registry, "kept", content)
    conf = {"repository": "kept", "url": registry.url, "upstream_name": "kept", "mode": "additive"}
    sync_in_process(**conf)
    registry.delete_tag("kept", "build-0")
    again = sync_in_process(**conf)
    assert again.version is None
    assert again.state == "success"


def test_credentials_of_a_connection_open_a_private_registry(
    sync_in_process: InProcessSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RegistryServer(tmp_path / "private", basic_auth=True) as private:
        push(private, "secret", wide(0.01, tags=1))
        connection = {
            "conn_type": "registry",
            "host": private.url,
            "login": USERNAME,
            "password": PASSWORD,
            "extra": {"allow_insecure_credentials": True},
        }
        monkeypatch.setenv("AIRFLOW_CONN_PRIVATE_REGISTRY", json.dumps(connection))
        conf = {"repository": "private", "url": private.url, "upstream_name": "secret"}
        assert sync_in_process(**conf).state == "failed"
        run = sync_in_process(**conf, conn_id="private_registry")
        assert counts(run.version, "present")["docker.tag"] == 1


def test_a_failed_run_says_why_in_the_database(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    run = sync_in_process(repository="absent", url=registry.url, upstream_name="no/such")
    assert run.state == "failed"
    assert run.tasks["commit_version"] == "upstream_failed"
    with open_database() as database:
        noted = database.runs.page().items[0]
    assert noted.state.value == "failed"
    assert "no/such" in (noted.error or "")


def test_a_connection_that_does_not_exist_fails_at_once_and_says_where_to_create_it(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    run = sync_in_process(repository="noconn", url=registry.url, upstream_name="any", conn_id="nowhere")
    assert run.state == "failed"
    with open_database() as database:
        noted = database.runs.page().items[0]
    assert "'nowhere'" in (noted.error or "")
    assert "Connections" in (noted.error or "")
