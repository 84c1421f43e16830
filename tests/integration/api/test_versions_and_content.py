"""Versions and content units over REST: in the documented shape, with every href and filter."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.domain import media_types
from support.metadata import Upstream, image, index, layer, sync
from support.rest_api import ApiServer, RestClient

BASE = "/pulp/api/v3"


@pytest.fixture
def versions(api_server: ApiServer, admin: RestClient, name: str) -> list[dict[str, Any]]:
    """Two versions of a repository: an index and an image, then the image's tag moved and the index gone."""
    admin.post("repositories/docker/docker/", name=name)
    record = api_server.database.repositories.by_name(name)
    upstream = Upstream()
    child = image("shared", note=name)
    upstream.tag("multi", index(child, platform={"os": "linux", "architecture": "arm64"}, note=name), child)
    upstream.tag("single", image("shared", layer("elsewhere", is_foreign=True), note=f"{name} 1"))
    sync(api_server.database, record, upstream)
    del upstream.tags["multi"]
    upstream.tag("single", image("shared", "new", note=f"{name} 2"))
    sync(api_server.database, record, upstream, held={"broken": "its manifest is not JSON"})
    listed = admin.get(admin.get("repositories/docker/docker/", name=name)["results"][0]["versions_href"])
    results: list[dict[str, Any]] = listed["results"]
    return results[::-1]


def test_a_version_begins_with_the_documented_keys(admin: RestClient, versions: list[dict[str, Any]]) -> None:
    first, second = versions
    assert list(first)[:5] == ["pulp_created", "pulp_href", "base_version", "content_summary", "number"]
    assert list(second) == [*first]
    assert list(first["content_summary"]) == ["added", "present", "removed"]
    assert (first["base_version"], second["base_version"]) == (None, first["pulp_href"])
    assert first["content_summary"]["removed"] == {}
    assert first["content_summary"]["added"]["docker.tag"] == {
        "count": 2,
        "href": f"{BASE}/content/docker/tags/?repository_version_added={first['pulp_href']}",
    }
    assert list(first["content_summary"]["present"]) == ["docker.blob", "docker.manifest", "docker.tag"]
    assert admin.get(second["pulp_href"]) == second


def test_a_version_says_which_tags_are_held(api_server: ApiServer, admin: RestClient, name: str) -> None:
    repository = admin.post("repositories/docker/docker/", name=name)
    upstream = Upstream()
    upstream.tag("good", image(name))
    upstream.tag("bad", image(f"{name} bad"))
    sync(api_server.database, api_server.database.repositories.by_name(name), upstream, held={"bad": "not JSON"})
    version = admin.get(f"{repository['versions_href']}1/")
    assert version["held_tags"] == [{"name": "bad", "digest": None, "reason": "not JSON"}]


def test_a_removed_unit_is_found_by_the_version_that_removed_it(
    admin: RestClient, versions: list[dict[str, Any]]
) -> None:
    removed = versions[1]["content_summary"]["removed"]
    tags = admin.get(removed["docker.tag"]["href"])["results"]
    assert [tag["name"] for tag in tags] == ["multi", "single"]
    for units in removed.values():
        assert admin.get(units["href"])["count"] == units["count"]


def test_units_lead_to_what_they_are_related_to(admin: RestClient, versions: list[dict[str, Any]]) -> None:
    tags = admin.get("content/docker/tags/", repository_version=versions[0]["pulp_href"], name="multi")["results"]
    parent = admin.get(tags[0]["tagged_manifest"])
    assert (tags[0]["digest"], tags[0]["media_type"]) == (parent["digest"], media_types.OCI_INDEX)
    assert (parent["kind"], parent["config_blob"], parent["blobs"]) == ("index", None, [])
    entry = parent["listed_manifests"][0]
    assert entry["platform"] == {"os": "linux", "architecture": "arm64"}
    child = admin.get(entry["manifest"])
    assert (child["digest"], child["kind"]) == (entry["digest"], "image")
    config, blob = admin.get(child["config_blob"]), admin.get(child["blobs"][0])
    assert config["media_type"] == media_types.OCI_CONFIG
    assert (blob["size"], blob["is_foreign"], blob["is_stored"]) == (len("shared"), False, True)
    assert admin.get(tags[0]["pulp_href"]) == tags[0]


def test_units_are_filtered_by_digest_media_type_and_name(admin: RestClient, versions: list[dict[str, Any]]) -> None:
    version = {"repository_version": versions[0]["pulp_href"]}

    def count(kind: str, **query: str) -> int:
        return int(admin.get(f"content/docker/{kind}/", **version, **query)["count"])

    manifests = admin.get("content/docker/manifests/", **version)["results"]
    digests = [manifest["digest"] for manifest in manifests]
    assert digests == sorted(digests)
    assert count("manifests") == 3
    assert count("manifests", digest=digests[0]) == 1
    assert count("manifests", digest__in=f"{digests[0]},{digests[1]}") == 2
    assert count("manifests", digest=digests[0], digest__in=digests[1]) == 0
    assert count("manifests", media_type=media_types.OCI_INDEX) == 1
    assert count("manifests", media_type__in=f"{media_types.OCI_INDEX},{media_types.OCI_MANIFEST}") == 3
    assert count("manifests", media_type=media_types.OCI_INDEX, media_type__in=media_types.OCI_MANIFEST) == 0
    assert count("tags", name="single") == 1
    assert count("tags", name__in="single,multi") == 2
    assert count("tags", name__icontains="MULT") == 1
    assert count("tags", digest=digests[0]) + count("tags", digest=digests[1]) + count("tags", digest=digests[2]) == 2
    foreign = admin.get("content/docker/blobs/", **version, ordering="-size")["results"]
    assert [blob["size"] for blob in foreign] == sorted((blob["size"] for blob in foreign), reverse=True)
    assert [blob["is_stored"] for blob in foreign if blob["is_foreign"]] == [False]


def test_without_a_version_every_stored_unit_is_listed(admin: RestClient, versions: list[dict[str, Any]]) -> None:
    of_version = admin.get("content/docker/blobs/", repository_version=versions[0]["pulp_href"])["count"]
    assert admin.get("content/docker/blobs/")["count"] > of_version


@pytest.mark.parametrize("unit", ["0", "-1", "x", "99999999", "9223372036854775808", "%00"])
@pytest.mark.parametrize("kind", ["blobs", "manifests", "tags"])
def test_a_unit_that_is_not_there_is_not_found(admin: RestClient, kind: str, unit: str) -> None:
    assert admin.get(f"content/docker/{kind}/{unit}/", 404).keys() == {"detail"}


@pytest.mark.parametrize("number", ["0", "3", "x", "2147483648"])
def test_a_version_that_is_not_there_is_not_found(
    admin: RestClient, versions: list[dict[str, Any]], number: str
) -> None:
    href = versions[0]["pulp_href"].removesuffix("1/")
    assert admin.get(f"{href}{number}/", 404).keys() == {"detail"}


def test_versions_are_listed_the_newest_first_unless_ordered_otherwise(
    admin: RestClient, versions: list[dict[str, Any]]
) -> None:
    href = versions[0]["pulp_href"].removesuffix("1/")
    assert [version["number"] for version in admin.get(href)["results"]] == [2, 1]
    assert [version["number"] for version in admin.get(href, ordering="number")["results"]] == [1, 2]
    assert admin.get(href, limit=1)["next"] == f"{href}?limit=1&offset=1"
    admin.get("repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/versions/", 404)
