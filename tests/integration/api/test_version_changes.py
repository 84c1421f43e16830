"""Versions over REST: compared, described, rolled back to, copied into another repository, and removed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry_sync.domain.runs import RunKey
from support.documents import code_blocks
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.rest_api import DAG_ID, ROLES, ApiServer, RestClient

REPOSITORIES = "repositories/docker/docker/"
NOWHERE = "/pulp/api/v3/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/"
DOCUMENTED = ["pulp_created", "pulp_href", "base_version", "content_summary", "number"]


@pytest.fixture
def repository(api_server: ApiServer, admin: RestClient, name: str) -> str:
    """The path of a repository with two versions: latest moved, old gone and new came with the second."""
    path: str = admin.post(REPOSITORIES, name=name)["pulp_href"]
    record, upstream = api_server.database.repositories.by_name(name), Upstream()
    upstream.tag("latest", image("a", note=name))
    upstream.tag("old", image("b", note=name))
    sync(api_server.database, record, upstream)
    del upstream.tags["old"]
    upstream.tag("latest", image("c", note=name))
    upstream.tag("new", image("a", note=name))
    sync(api_server.database, record, upstream)
    return path


@pytest.fixture
def target(admin: RestClient, name: str) -> str:
    """The path of a repository without versions."""
    path: str = admin.post(REPOSITORIES, name=f"{name}-target")["pulp_href"]
    return path


def tags(admin: RestClient, version: str) -> list[str]:
    return [tag["name"] for tag in admin.get("content/docker/tags/", repository_version=version)["results"]]


# -- compared ---------------------------------------------------------------------------------------------------


def test_a_version_is_compared_with_its_base(admin: RestClient, repository: str) -> None:
    found = admin.get(f"{repository}versions/2/diff/")
    assert (found["version"], found["base_version"]) == (f"{repository}versions/2/", f"{repository}versions/1/")
    assert [(tag["name"], tag["change"]) for tag in found["tags"]] == [
        ("latest", "moved"),
        ("new", "added"),
        ("old", "removed"),
    ]
    moved = found["tags"][0]
    assert moved["before"] != moved["after"]
    assert found["counts"]["docker.tag"] == {"added": 1, "shared": 0, "removed": 1, "moved": 1}
    for kind, units in (("docker.manifest", found["manifests"]), ("docker.blob", found["blobs"])):
        for change in ("added", "removed"):
            those = [unit for unit in units if unit["change"] == change]
            assert found["counts"][kind][change] == len(those)
            assert found["sizes"][kind][change] == sum(unit["size"] for unit in those)
    assert (found["is_empty"], found["next"]) == (False, None)


def test_a_version_is_compared_with_any_other_and_with_nothing(admin: RestClient, repository: str, target: str) -> None:
    backwards = admin.get(f"{repository}versions/1/diff/", base=2)
    assert {tag["name"]: tag["change"] for tag in backwards["tags"]} == {
        "latest": "moved",
        "new": "removed",
        "old": "added",
    }
    nothing = admin.get(f"{repository}versions/1/diff/", base=0)
    assert nothing == admin.get(f"{repository}versions/1/diff/")
    assert (nothing["base_version"], nothing["counts"]["docker.tag"]["added"]) == (None, 2)
    assert admin.get(f"{repository}versions/1/diff/", base=1)["is_empty"]
    assert admin.get(f"{repository}versions/1/diff/", base_repository=target) == nothing | {"base_version": None}
    made = admin.post(f"{target}copy_tags/", source_repository=repository)
    same = admin.get(f"{repository}versions/2/diff/", base_repository=target)
    assert (same["is_empty"], same["base_version"]) == (True, made["pulp_href"])


def test_a_difference_is_read_in_parts(admin: RestClient, repository: str) -> None:
    whole = admin.get(f"{repository}versions/2/diff/")
    seen: dict[str, list[Any]] = {"tags": [], "manifests": [], "blobs": []}
    href: str | None = f"{repository}versions/2/diff/?limit=1"
    while href:
        part = admin.get(href)
        assert part["counts"] == whole["counts"]
        for kind in seen:
            assert len(part[kind]) <= 1
            seen[kind] += part[kind]
        href = part["next"]
    assert seen == {kind: whole[kind] for kind in seen}


@pytest.mark.parametrize(
    ("path", "query", "status", "keys"),
    [
        ("versions/2/diff/", {"base": 7}, 404, {"detail"}),
        ("versions/7/diff/", {}, 404, {"detail"}),
        ("versions/2/diff/", {"base": -1}, 400, {"base"}),
        ("versions/2/diff/", {"base": "x"}, 400, {"base"}),
        ("versions/2/diff/", {"base_repository": "codzo"}, 400, {"base_repository"}),
        ("versions/2/diff/", {"base_repository": NOWHERE}, 404, {"detail"}),
        ("versions/2/diff/", {"limit": 0}, 400, {"limit"}),
        ("versions/7/holds/", {}, 404, {"detail"}),
    ],
)
def test_what_cannot_be_compared_is_reported(
    admin: RestClient, repository: str, path: str, query: dict[str, Any], status: int, keys: set[str]
) -> None:
    assert admin.get(f"{repository}{path}", status, **query).keys() == keys


# -- said of them -----------------------------------------------------------------------------------------------


def test_a_version_says_what_it_is_after_the_documented_fields(
    api_server: ApiServer, admin: RestClient, repository: str, name: str
) -> None:
    version = admin.get(f"{repository}versions/2/")
    assert list(version) == [
        *DOCUMENTED, "is_complete", "held_tag_count", "missing_manifest_count", "description", "pulp_labels", "origin",
    ]  # fmt: skip
    assert (version["is_complete"], version["held_tag_count"]) == (True, 0)
    assert version["origin"] == {"kind": "sync", "version": None, "created_by": None}
    record, upstream = api_server.database.repositories.by_name(name), Upstream()
    upstream.tag("latest", image("d", note=name))
    held = {f"bad-{number:02}": "its manifest is not JSON" for number in range(30)}
    for bad in held:
        upstream.tag(bad, image(bad, note=name))
    sync(api_server.database, record, upstream, held=held)
    version = admin.get(f"{repository}versions/3/")
    assert (version["is_complete"], version["held_tag_count"], len(version["held_tags"])) == (False, 30, 20)
    first = admin.get(f"{repository}versions/3/holds/", limit=20)
    assert (first["count"], first["results"]) == (30, version["held_tags"])
    rest = admin.get(first["next"])
    assert [hold["name"] for hold in (*first["results"], *rest["results"])] == sorted(held)
    assert rest["results"][0] == {"name": "bad-20", "digest": None, "reason": "its manifest is not JSON"}
    assert rest["next"] is None


def test_a_version_says_which_entries_of_its_indexes_are_missing(
    api_server: ApiServer, admin: RestClient, repository: str, name: str
) -> None:
    there, missing = image("there", note=name), image("missing", note=name)
    upstream = Upstream()
    upstream.tag("multi", index(there, missing, note=name), there)
    upstream.tag("latest", image("c", note=name))
    sync(api_server.database, api_server.database.repositories.by_name(name), upstream)
    gap = {"index": upstream.tags["multi"].digest, "digest": missing.digest}
    version = admin.get(f"{repository}versions/3/")
    assert (version["is_complete"], version["missing_manifest_count"], version["missing_manifests"]) == (
        False,
        1,
        [gap],
    )
    page = admin.get(f"{repository}versions/3/missing_manifests/")
    assert (page["count"], page["results"]) == (1, [gap])
    assert admin.get(f"{repository}versions/2/missing_manifests/")["count"] == 0


def test_a_version_is_described_and_holds_what_it_held(admin: RestClient, repository: str) -> None:
    href = f"{repository}versions/1/"
    before = admin.get(href)
    said = admin.patch(href, description="tested on Friday", pulp_labels={"stage": "production"})
    assert said == {**before, "description": "tested on Friday", "pulp_labels": {"stage": "production"}}
    assert admin.patch(href, description=None) == {**said, "description": None}
    assert admin.patch(href) == {**said, "description": None}
    assert admin.patch(href, **{**said, "number": 7}) == said
    assert admin.get(href) == said
    assert admin.patch(href, 400, name="x").keys() == {"name"}
    assert admin.patch(href, 400, pulp_labels={"": "x"}).keys() == {"pulp_labels"}
    admin.patch(f"{repository}versions/7/", 404, description="x")


def test_a_version_says_where_it_came_from(
    api_server: ApiServer, admin: RestClient, repository: str, name: str
) -> None:
    came = admin.get(f"{repository}versions/2/provenance/")
    assert (came["version"], came["origin"]["kind"], came["origin_repository"]) == (
        f"{repository}versions/2/", "sync", None,
    )  # fmt: skip
    run, remote = came["sync"], came["sync"]["remote"]
    assert (run["dag_id"], run["task"], run["mode"]) == ("sync_registry", None, "mirror")
    assert (remote["name"], remote["url"], remote["upstream_name"]) == (
        "upstream", "https://registry.example", "library/app",
    )  # fmt: skip
    assert admin.get(remote["remote"])["name"] == "upstream"
    assert run["requests"].keys() == {
        "heads", "manifests", "blobs", "tag_pages", "digest_pages", "retries", "received_bytes",
    }  # fmt: skip
    admin.post(f"{repository}versions/1/rollback/")
    came = admin.get(f"{repository}versions/3/provenance/")
    assert (came["sync"], came["origin"]["kind"], came["origin_repository"]) == (None, "rollback", name)
    admin.get(f"{repository}versions/7/provenance/", 404)


def test_a_version_of_a_task_leads_back_to_it(
    api_server: ApiServer, admin: RestClient, repository: str, name: str
) -> None:
    remote = admin.post(
        "remotes/docker/docker/", name=name, url="https://registry.example", upstream_name="library/app"
    )
    task = admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository)["task"]
    key = RunKey(DAG_ID, f"registry_sync__{task.split('/')[-2]}")
    upstream = Upstream()
    upstream.tag("latest", image("d", note=name))
    run = open_run(api_server.database, api_server.database.repositories.by_name(name), key=key)
    play_stages(api_server.database, run, upstream)
    api_server.database.versions.commit(run.id)
    assert admin.get(f"{repository}versions/3/provenance/")["sync"]["task"] == task


def test_content_says_who_holds_it_and_where_its_bytes_came_from(
    api_server: ApiServer, admin: RestClient, repository: str, target: str, name: str
) -> None:
    admin.post(f"{target}copy_tags/", source_repository_version=f"{repository}versions/1/", names=["old"])
    tag = admin.get("content/docker/tags/", repository_version=f"{repository}versions/1/", name="old")["results"][0]
    manifest = admin.get(tag["tagged_manifest"])
    holders = [
        {"repository": repository, "name": name, "first_version": 1, "is_in_latest": False},
        {"repository": target, "name": f"{name}-target", "first_version": 1, "is_in_latest": True},
    ]
    found = admin.get(f"{manifest['pulp_href']}provenance/")
    assert (found["digest"], found["size"], found["holders"]) == (manifest["digest"], manifest["size"], holders)
    blob = admin.get(manifest["config_blob"])
    api_server.database.contents.mark_missing([blob["digest"]])
    assert admin.get(f"{blob['pulp_href']}provenance/")["stored_at"] is None
    api_server.database.contents.mark_stored([blob["digest"]], source="registry.example/library/app")
    found = admin.get(f"{blob['pulp_href']}provenance/")
    assert (found["source"], found["verified_at"]) == ("registry.example/library/app", None)
    assert found["stored_at"] is not None
    assert found["holders"] == holders
    for kind in ("blobs", "manifests"):
        admin.get(f"content/docker/{kind}/999999/provenance/", 404)


def test_the_tutorial_shows_every_field_of_a_version_and_no_other(admin: RestClient, repository: str) -> None:
    blocks = [block.text for block in code_blocks("tutorial/synchronize-rest-shell.md") if block.language == "json"]
    shown = next(document for document in map(json.loads, blocks) if "content_summary" in document)
    version = admin.get(f"{repository}versions/1/")
    assert list(shown) == list(version)
    assert list(shown["origin"]) == list(version["origin"])


def test_a_repository_says_what_it_takes(admin: RestClient, repository: str, target: str) -> None:
    blobs = admin.get("content/docker/blobs/", repository_version=f"{repository}versions/1/")["results"]
    removed = admin.get("content/docker/blobs/", repository_version_removed=f"{repository}versions/2/")["results"]
    added = admin.get("content/docker/blobs/", repository_version_added=f"{repository}versions/2/")["results"]
    size = sum(blob["size"] for blob in (*blobs, *added))
    usage = admin.get(f"{repository}usage/")
    assert (usage["version_count"], usage["manifests"]["count"]) == (2, 3)
    assert usage["blobs"] == {"count": len(blobs) + len(added), "size": size}
    twice = [blob for blob in blobs if blob not in removed]
    assert usage["by_versions"]["size"] == size + sum(blob["size"] for blob in twice)
    assert usage["missing_blobs"] == {"count": 0, "size": 0}
    assert admin.get(f"{target}usage/")["version_count"] == 0
    admin.get(f"{NOWHERE}usage/", 404)


# -- made of others ---------------------------------------------------------------------------------------------


def test_a_rollback_returns_the_version_it_made_and_the_second_time_the_latest(
    admin: RestClient, repository: str
) -> None:
    response = admin.ask("POST", f"{repository}versions/1/rollback/", {"description": "latest does not start"})
    made = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"{repository}versions/3/")
    assert (made["pulp_href"], made["base_version"]) == (f"{repository}versions/3/", f"{repository}versions/2/")
    assert made["description"] == "latest does not start"
    assert made["origin"] == {"kind": "rollback", "version": f"{repository}versions/1/", "created_by": "admin"}
    assert (made.pop("missing_blob_count"), made.pop("missing_blob_bytes")) == (0, 0)
    assert admin.get(made["pulp_href"]) == made
    assert tags(admin, made["pulp_href"]) == ["latest", "old"]
    again = admin.post(f"{repository}versions/1/rollback/", 200)
    assert again["pulp_href"] == made["pulp_href"]
    assert admin.get(f"{repository}versions/")["count"] == 3


def test_a_rollback_counts_blobs_whose_bytes_are_gone(
    api_server: ApiServer, admin: RestClient, repository: str
) -> None:
    blobs = admin.get("content/docker/blobs/", repository_version_removed=f"{repository}versions/2/")["results"]
    api_server.database.contents.mark_missing([blob["digest"] for blob in blobs])
    made = admin.post(f"{repository}versions/1/rollback/")
    assert made["missing_blob_count"] == len(blobs) > 0
    assert made["missing_blob_bytes"] == sum(blob["size"] for blob in blobs)


def test_tags_are_copied_with_what_is_below_them(admin: RestClient, repository: str, target: str) -> None:
    response = admin.ask(
        "POST", f"{target}copy_tags/", {"source_repository_version": f"{repository}versions/1/", "names": ["l*"]}
    )
    made = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"{target}versions/1/")
    assert made["origin"] == {"kind": "copy", "version": f"{repository}versions/1/", "created_by": "admin"}
    assert made["content_summary"]["added"].keys() == {"docker.blob", "docker.manifest", "docker.tag"}
    assert tags(admin, made["pulp_href"]) == ["latest"]
    assert admin.post(f"{target}copy_tags/", 200, source_repository_version=f"{repository}versions/1/", names=["l*"])
    more = admin.post(f"{target}copy_tags/", source_repository=repository, names=["new"])
    assert tags(admin, more["pulp_href"]) == ["latest", "new"]
    mirrored = admin.post(
        f"{target}copy_tags/",
        source_repository_version=f"{repository}versions/1/",
        mirror=True,
        description="as it was",
    )
    assert (tags(admin, mirrored["pulp_href"]), mirrored["description"]) == (["latest", "old"], "as it was")


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({}, {"non_field_errors"}),
        ({"source_repository": "{repository}", "source_repository_version": "{repository}versions/1/"}, None),
        ({"source_repository": NOWHERE}, {"source_repository"}),
        ({"source_repository": "codzo"}, {"source_repository"}),
        ({"source_repository": "{target}"}, {"source_repository"}),
        ({"source_repository_version": "{repository}versions/7/"}, {"source_repository_version"}),
        ({"source_repository": "{repository}", "names": ["nothing"]}, {"names"}),
        ({"source_repository": "{repository}", "names": ["nothing*"]}, {"names"}),
        ({"source_repository": "{repository}", "names": ["no/tag"]}, {"names"}),
        ({"source_repository": "{repository}", "names": [" "]}, {"names"}),
        ({"source_repository": "{repository}", "names": []}, {"names"}),
        ({"source_repository": "{repository}", "policy": "immediate"}, {"policy"}),
    ],
)
def test_a_copy_that_cannot_be_made_is_refused_and_makes_nothing(
    admin: RestClient, repository: str, target: str, given: dict[str, Any], keys: set[str] | None
) -> None:
    paths = {"repository": repository, "target": target}
    sent = {name: value.format(**paths) if isinstance(value, str) else value for name, value in given.items()}
    assert admin.post(f"{target}copy_tags/", 400, **sent).keys() == (keys or {"non_field_errors"})
    assert admin.get(target)["latest_version_href"] is None


def test_a_repository_is_not_copied_into_itself_nor_into_nothing(admin: RestClient, repository: str) -> None:
    assert admin.post(f"{repository}copy_tags/", 400, source_repository=repository).keys() == {"non_field_errors"}
    admin.post(f"{NOWHERE}copy_tags/", 404, source_repository=repository)
    admin.post(f"{repository}versions/7/rollback/", 404)


# -- removed ----------------------------------------------------------------------------------------------------


def test_a_version_is_removed_and_the_only_one_stays(admin: RestClient, repository: str) -> None:
    held = tags(admin, f"{repository}versions/2/")
    admin.delete(f"{repository}versions/1/")
    admin.get(f"{repository}versions/1/", 404)
    admin.delete(f"{repository}versions/1/", 404)
    left = admin.get(f"{repository}versions/2/")
    assert (left["base_version"], tags(admin, left["pulp_href"])) == (None, held)
    assert "only one" in admin.ask("DELETE", f"{repository}versions/2/").json()["detail"]
    admin.delete(f"{repository}versions/2/", 409)


# -- who may ----------------------------------------------------------------------------------------------------


def test_reading_takes_the_dag_and_changing_takes_what_changing_a_repository_takes(
    api_server: ApiServer, repository: str, target: str
) -> None:
    def statuses(method: str, path: str, document: Any = None) -> tuple[int, ...]:
        return tuple(api_server.client(role).ask(method, path, document).status_code for role in ROLES)

    for path in (
        "versions/2/diff/",
        "versions/2/holds/",
        "versions/2/missing_manifests/",
        "versions/2/provenance/",
        "usage/",
        "pulls/",
    ):
        assert statuses("GET", f"{repository}{path}") == (200, 200, 200, 200)
    assert statuses("PATCH", f"{repository}versions/1/", {"description": "x"}) == (403, 403, 200, 200)
    assert statuses("POST", f"{repository}versions/1/rollback/", {}) == (403, 403, 201, 200)
    assert statuses("POST", f"{target}copy_tags/", {"source_repository": repository}) == (403, 403, 201, 200)
    assert statuses("DELETE", f"{repository}versions/1/") == (403, 403, 204, 404)
