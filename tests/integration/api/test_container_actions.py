"""Actions of Pulp's clients: single tags, copies and labels, and what a task says of them."""

from __future__ import annotations

from typing import Any

from support.rest_api import RestClient

REPOSITORIES, TAGS = "repositories/container/container/", "content/container/tags/"


def done(admin: RestClient, path: str, **document: Any) -> Any:
    """The task of an action, which has ended."""
    task = admin.get(admin.post(path, 202, **document)["task"])
    assert (task["state"], task["error"], task["progress_reports"]) == ("completed", None, [])
    assert task["logging_cid"] == task["pulp_href"].split("/")[-2].replace("-", "")
    assert task["prn"] == f"prn:core.task:{task['pulp_href'].split('/')[-2]}"
    assert (task["result"], task["worker"], task["child_tasks"], task["task_group"]) == (None, None, [], None)
    return task


def tags_of(admin: RestClient, version: str) -> dict[str, str]:
    found = admin.get(TAGS, repository_version=version)["results"]
    return {tag["name"]: tag["digest"] for tag in found}


def source(synced: dict[str, str]) -> str:
    return synced["repository"].replace("docker", "container")


def test_a_copy_is_tagged_and_untagged(admin: RestClient, synced: dict[str, str], name: str) -> None:
    target = admin.post(REPOSITORIES, name=name)["pulp_href"]
    task = done(admin, f"{target}copy_tags/", source_repository_version=f"{source(synced)}versions/2/")
    assert (task["name"], task["created_resources"]) == ("registry_sync.copy_tags", [f"{target}versions/1/"])
    assert task["reserved_resources_record"] == [target]
    ((tag, digest),) = tags_of(admin, f"{target}versions/1/").items()
    task = done(admin, f"{target}tag/", tag="stable", digest=digest)
    assert (task["name"], task["created_resources"]) == ("registry_sync.tag", [f"{target}versions/2/"])
    assert tags_of(admin, f"{target}versions/2/") == {tag: digest, "stable": digest}
    assert admin.get(f"{target}versions/2/")["origin"]["kind"] == "tag"
    assert done(admin, f"{target}tag/", tag="stable", digest=digest)["created_resources"] == []
    done(admin, f"{target}untag/", tag=tag)
    assert tags_of(admin, f"{target}versions/3/") == {"stable": digest}
    assert admin.post(f"{target}untag/", 400, tag=tag).keys() == {"tag"}
    assert admin.post(f"{target}tag/", 400, tag="a b", digest=digest).keys() == {"tag"}
    for wrong in ("nonsense", f"sha256:{'0' * 64}"):
        assert admin.post(f"{target}tag/", 400, tag="x", digest=wrong).keys() == {"digest"}


def test_manifests_are_copied_without_tags(admin: RestClient, synced: dict[str, str], name: str) -> None:
    target = admin.post(REPOSITORIES, name=name)["pulp_href"]
    version = f"{source(synced)}versions/1/"
    index = tags_of(admin, version)["index"]
    task = done(admin, f"{target}copy_manifests/", source_repository_version=version, digests=[index])
    assert task["created_resources"] == [f"{target}versions/1/"]
    present = admin.get(f"{target}versions/1/")["content_summary"]["present"]
    assert present["container.manifest"]["count"] == 2
    assert "container.tag" not in present
    gone = admin.post(REPOSITORIES, name=f"{name}-gone")["pulp_href"]
    assert admin.ask("DELETE", gone).status_code == 202
    again = {"source_repository_version": version, "media_types": [], "digests": None}
    assert done(admin, f"{target}copy_manifests/", **again)["created_resources"] == []
    for field, given in (
        ("digests", {"source_repository": source(synced), "digests": [f"sha256:{'0' * 64}"]}),
        ("source_repository", {"source_repository": gone}),
        ("source_repository_version", {"source_repository_version": f"{source(synced)}versions/99/"}),
    ):
        assert admin.post(f"{target}copy_manifests/", 400, **given).keys() == {field}
    assert admin.post(f"{target}copy_manifests/", 400).keys() == {"non_field_errors"}


def test_the_documented_copy_still_responds_with_the_version(
    admin: RestClient, synced: dict[str, str], name: str
) -> None:
    target = admin.post("repositories/docker/docker/", name=name)["pulp_href"]
    made = admin.post(f"{target}copy_tags/", source_repository=synced["repository"])
    assert made["number"] == 1


def test_one_label_is_set_and_removed(admin: RestClient, name: str) -> None:
    place = {"url": "https://registry.example", "upstream_name": "app"}
    for kind, more in (("repositories", {}), ("remotes", place), ("distributions", {"base_path": name})):
        documented = admin.post(f"{kind}/docker/docker/", name=name, pulp_labels={"a": "1"}, **more)["pulp_href"]
        for href in (documented, documented.replace("docker", "container")):
            assert admin.post(f"{href}set_label/", key="env", value="prod") == {"key": "env", "value": "prod"}
            assert admin.get(href)["pulp_labels"] == {"a": "1", "env": "prod"}
            assert admin.post(f"{href}unset_label/", key="env") == {"key": "env", "value": "prod"}
            assert admin.post(f"{href}unset_label/", key="env") == {"key": "env", "value": None}
            assert admin.get(href)["pulp_labels"] == {"a": "1"}
            assert admin.post(f"{href}set_label/", 400, key="", value="x").keys() == {"key"}
        admin.post(
            f"{documented[:-2]}0/set_label/" if documented[-2] != "0" else f"{documented[:-2]}1/set_label/",
            404,
            key="a",
            value="b",
        )


def test_a_task_that_has_ended_is_deleted(admin: RestClient, synced: dict[str, str], name: str) -> None:
    target = admin.post(REPOSITORIES, name=name)["pulp_href"]
    task = done(admin, f"{target}copy_tags/", source_repository=source(synced))["pulp_href"]
    admin.delete(task)
    admin.get(task, 404)
    waiting = admin.post(f"{synced['remote']}sync/", 202, repository=synced["repository"])["task"]
    shown = admin.get(waiting)
    assert shown["reserved_resources_record"] == [synced["repository"], synced["remote"]], "before it has started"
    assert "cancel it first" in admin.ask("DELETE", waiting).json()["detail"]
    admin.patch(waiting, state="canceled")
    admin.delete(waiting)
    admin.get(waiting, 404)
    admin.delete(waiting, 404)
