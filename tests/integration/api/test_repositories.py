"""Repositories over REST."""

from __future__ import annotations

import re

import pytest

from support.metadata import Upstream, image, sync
from support.rest_api import ApiServer, RestClient

LIST = "repositories/docker/docker/"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_a_repository_is_made_and_read_back_as_documented(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name)
    read = admin.get(made["pulp_href"])
    assert read == made
    documented = ["pulp_created", "pulp_href", "latest_version_href", "versions_href", "description", "name"]
    assert list(read) == [*documented, "retain_repo_versions", "pulp_labels", "pulp_last_updated"]
    assert MOMENT.fullmatch(read["pulp_created"])
    assert re.fullmatch(r"/pulp/api/v3/repositories/docker/docker/[0-9a-f-]{36}/", read["pulp_href"])
    assert read["latest_version_href"] is None
    assert read["versions_href"] == read["pulp_href"] + "versions/"
    assert admin.get(read["versions_href"]) == {"count": 0, "next": None, "previous": None, "results": []}


def test_the_response_to_a_new_repository_says_where_it_is(admin: RestClient, name: str) -> None:
    response = admin.ask("POST", LIST, {"name": name})
    assert response.headers["location"] == response.json()["pulp_href"]


def test_a_second_repository_of_a_name_is_refused(admin: RestClient, name: str) -> None:
    admin.post(LIST, name=name)
    assert admin.post(LIST, 400, name=name) == {"name": ["This field must be unique."]}
    assert admin.get(LIST, name=name)["count"] == 1


def test_a_change_changes_what_was_sent_and_a_replacement_everything(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, description="old", retain_repo_versions=3, pulp_labels={"team": "web"})
    changed = admin.patch(made["pulp_href"], description="new")
    assert (changed["description"], changed["retain_repo_versions"]) == ("new", 3)
    assert changed["pulp_labels"] == {"team": "web"}
    assert changed["pulp_last_updated"] > made["pulp_last_updated"]
    replaced = admin.put(made["pulp_href"], name=f"{name}-2")
    assert (replaced["name"], replaced["description"], replaced["pulp_labels"]) == (f"{name}-2", None, {})
    assert replaced["pulp_created"] == made["pulp_created"]
    assert admin.get(made["pulp_href"]) == replaced


def test_a_response_may_be_changed_and_sent_back(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name)
    assert admin.put(made["pulp_href"], **{**made, "description": "edited"})["description"] == "edited"


def test_a_repository_cannot_take_the_name_of_another(admin: RestClient, name: str) -> None:
    admin.post(LIST, name=name)
    other = admin.post(LIST, name=f"{name}-other")
    assert admin.patch(other["pulp_href"], 400, name=name) == {"name": ["This field must be unique."]}


def test_a_removed_repository_is_gone_with_its_versions(admin: RestClient, api_server: ApiServer, name: str) -> None:
    made = admin.post(LIST, name=name)
    upstream = Upstream()
    upstream.tag("latest", image(name))
    sync(api_server.database, api_server.database.repositories.by_name(name), upstream)
    latest = admin.get(made["pulp_href"])["latest_version_href"]
    admin.delete(made["pulp_href"])
    for href in (made["pulp_href"], made["versions_href"], latest):
        assert admin.get(href, 404).keys() == {"detail"}
    admin.delete(made["pulp_href"], 404)


@pytest.mark.parametrize("href", [f"{LIST}nonsense/", f"{LIST}fcf03266-f0e4-4497-8434-0fe9d94c8053/", f"{LIST}%00/"])
def test_what_is_not_there_is_not_found(admin: RestClient, href: str) -> None:
    for method in ("GET", "DELETE"):
        assert admin.ask(method, href).status_code == 404
    assert admin.ask("PATCH", href, {}).status_code == 404


def test_lists_are_pages_that_lead_to_each_other(admin: RestClient, name: str) -> None:
    for number in range(5):
        admin.post(LIST, name=f"{name}-{number}")
    first = admin.get(LIST, name__icontains=name.upper(), limit=2)
    assert (first["count"], first["previous"]) == (5, None)
    second = admin.get(first["next"])
    third = admin.get(second["next"])
    assert third["next"] is None
    names = [entry["name"] for page in (first, second, third) for entry in page["results"]]
    assert names == [f"{name}-{number}" for number in range(5)]
    assert admin.get(third["previous"]) == second
    assert admin.get(second["previous"])["results"] == first["results"]


def test_lists_are_filtered_and_ordered_as_requested(admin: RestClient, name: str) -> None:
    for suffix in ("b", "c", "a"):
        admin.post(LIST, name=f"{name}-{suffix}")

    def names(**query: str) -> list[str]:
        return [entry["name"].removeprefix(f"{name}-") for entry in admin.get(LIST, **query)["results"]]

    assert names(name=f"{name}-c") == ["c"]
    assert names(name__in=f"{name}-c, {name}-a,nobody") == ["a", "c"]
    assert names(name__icontains=name, ordering="-name") == ["c", "b", "a"]
    assert names(name__icontains=name, ordering="pulp_created") == ["b", "c", "a"]
    assert names(name__icontains=f"{name}-%") == []


def test_a_change_is_made_only_of_what_its_client_has_seen(admin: RestClient, name: str) -> None:
    """Of two who read the same, the second to change it comes too late."""
    place = {"url": "https://registry.example", "upstream_name": "app"}
    kinds: dict[str, dict[str, str]] = {"repositories": {}, "remotes": place, "distributions": {"base_path": name}}
    for kind, more in kinds.items():
        for form in ("docker/docker", "container/container"):
            given = {"name": f"{name}-{form[0]}", **more, **_own_path(more, form)}
            made = admin.ask("POST", f"{kind}/{form}/", given).json()
            href = made["pulp_href"] if "task" not in made else admin.get(made["task"])["created_resources"][0]
            seen = {"If-Match": admin.ask("GET", href).headers["etag"]}
            labels = {"pulp_labels": {"a": "b"}}
            changed, deleted = (200, 204) if form == "docker/docker" else (202, 202)  # a task that has ended
            assert admin.ask("PATCH", href, labels, headers=seen).status_code == changed
            for method, document in (("PATCH", labels), ("DELETE", None)):
                late = admin.ask(method, href, document, headers=seen)
                assert (late.status_code, list(late.json())) == (412, ["detail"]), (kind, form, method)
            now = admin.ask("GET", href).headers["etag"]
            assert late.headers["etag"] == now
            assert admin.ask("PATCH", href, labels, headers={"If-Match": f'"x", {now}'}).status_code == changed
            assert admin.ask("DELETE", href, headers={"If-Match": "*"}).status_code == deleted


@pytest.mark.parametrize("form", ["docker", "container"])
def test_a_version_is_changed_and_deleted_only_as_its_client_has_seen_it(
    admin: RestClient, synced: dict[str, str], name: str, form: str
) -> None:
    target = admin.post(LIST, name=name)["pulp_href"]
    for number in (1, 2):
        admin.post(f"{target}copy_tags/", 201, source_repository_version=f"{synced['repository']}versions/{number}/")
    href = f"{target}versions/1/".replace("docker", form)
    seen = {"If-Match": admin.ask("GET", href).headers["etag"]}
    assert admin.ask("PATCH", href, {"description": "tested"}, headers=seen).status_code == 200
    for method, document in (("PATCH", {"description": "too late"}), ("DELETE", None)):
        late = admin.ask(method, href, document, headers=seen)
        assert (late.status_code, late.headers["etag"]) == (412, admin.ask("GET", href).headers["etag"])
    assert admin.get(href)["description"] == "tested"
    now = {"If-Match": late.headers["etag"]}
    assert admin.ask("DELETE", href, headers=now).status_code == (204 if form == "docker" else 202)
    admin.get(href, 404)


def _own_path(more: dict[str, str], form: str) -> dict[str, str]:
    return {"base_path": f"{more['base_path']}/{form[0]}"} if "base_path" in more else {}
