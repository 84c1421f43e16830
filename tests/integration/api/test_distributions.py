"""Distributions over REST."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest

from support.metadata import two_versions
from support.rest_api import ApiServer, RestClient

LIST = "distributions/docker/docker/"


@pytest.fixture
def repository(admin: RestClient, api_server: ApiServer, name: str) -> str:
    """The path of a repository with two versions."""
    repository = two_versions(api_server.database, name)
    return f"/pulp/api/v3/repositories/docker/docker/{repository.id}/"


def test_a_distribution_is_made_and_read_back(admin: RestClient, name: str, repository: str) -> None:
    response = admin.ask("POST", LIST, {"name": name, "base_path": f"team/{name}", "repository": repository})
    made = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == made["pulp_href"]
    assert re.fullmatch(r"/pulp/api/v3/distributions/docker/docker/[0-9a-f-]{36}/", made["pulp_href"])
    assert {field: value for field, value in made.items() if not field.startswith("pulp_")} == {
        "name": name,
        "base_path": f"team/{name}",
        "registry_path": f"team/{name}",
        "repository": repository,
        "repository_version": None,
        "private": True,
    }
    assert admin.get(made["pulp_href"]) == made
    assert admin.get(LIST, name=name)["results"] == [made]


def test_a_version_is_promoted_and_taken_back_in_one_field(admin: RestClient, name: str, repository: str) -> None:
    made = admin.post(LIST, name=name, base_path=name, repository_version=f"{repository}versions/1/")
    for number in (2, 1):
        changed = admin.patch(made["pulp_href"], repository_version=f"{repository}versions/{number}/")
        assert (changed["repository"], changed["repository_version"]) == (None, f"{repository}versions/{number}/")
    latest = admin.patch(made["pulp_href"], repository=repository)
    assert (latest["repository"], latest["repository_version"]) == (repository, None)
    assert admin.patch(made["pulp_href"], repository_version=None)["repository"] == repository
    assert admin.patch(made["pulp_href"], repository=None)["repository"] is None


def test_a_response_may_be_changed_and_sent_back(admin: RestClient, name: str, repository: str) -> None:
    made = admin.post(LIST, name=name, base_path=name, repository=repository)
    replaced = admin.put(made["pulp_href"], **{**made, "private": False})
    assert replaced == {**made, "private": False, "pulp_last_updated": replaced["pulp_last_updated"]}


def test_what_nobody_pulls_is_found(admin: RestClient, api_server: ApiServer, repository: str) -> None:
    at = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
    api_server.database.last_pulls.record({(repository.split("/")[-2], "latest"): at})
    pulls = admin.get(f"{repository}pulls/")
    assert [(tag["name"], tag["last_pulled"]) for tag in pulls["results"]] == [
        ("latest", "2026-03-01T12:00:00.000000Z"),
        ("new", None),
    ]
    tags = admin.get("content/docker/tags/", repository_version=f"{repository}versions/2/")["results"]
    assert [tag["digest"] for tag in pulls["results"]] == [tag["digest"] for tag in tags]
    unused = admin.get(f"{repository}pulls/", unused_since="2026-03-01T13:00:00+01:00")
    assert [tag["name"] for tag in unused["results"]] == ["new"]
    page = admin.get(f"{repository}pulls/", unused_since="2026-03-01T12:00:01Z", ordering="last_pulled", limit=1)
    assert (page["count"], page["results"][0]["name"]) == (2, "new")
    assert admin.get(page["next"])["results"][0]["name"] == "latest"
    for wrong in ("2026-03-01T12:00:00", "0.5", "1772366400", "yesterday"):
        assert admin.ask("GET", f"{repository}pulls/?unused_since={wrong}").status_code == 400
    admin.get("/pulp/api/v3/repositories/docker/docker/00000000-0000-0000-0000-000000000000/pulls/", 404)


def test_a_served_version_is_not_deleted(admin: RestClient, name: str, repository: str) -> None:
    made = admin.post(LIST, name=name, base_path=name, repository_version=f"{repository}versions/1/")
    refused = admin.ask("DELETE", f"{repository}versions/1/")
    assert refused.status_code == 409
    assert f"the distribution {name!r}" in refused.json()["detail"]
    admin.delete(made["pulp_href"])
    admin.delete(f"{repository}versions/1/")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"base_path": "Team"}, "base_path"),
        ({"base_path": "team/versions/3"}, "base_path"),
        ({"repository": "/pulp/api/v3/remotes/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/"}, "repository"),
        ({"repository": "/pulp/api/v3/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/"}, "repository"),
        ({"repository": None, "repository_version": "{repository}versions/9/"}, "repository_version"),
        ({"repository_version": "{repository}versions/1/"}, "repository_version"),
        ({"base": "x"}, "base"),
    ],
)
def test_bad_input_is_named_by_its_field(
    admin: RestClient, name: str, repository: str, fields: dict[str, str], wrong: str
) -> None:
    given = {"name": name, "base_path": name, "repository": repository}
    given |= {field: value and value.format(repository=repository) for field, value in fields.items()}
    assert list(admin.post(LIST, 400, **given)) == [wrong]
    assert admin.get(LIST, name=name)["count"] == 0


def test_name_and_base_path_are_unique(admin: RestClient, name: str, repository: str) -> None:
    admin.post(LIST, name=name, base_path=name, repository=repository)
    unique = ["This field must be unique."]
    assert admin.post(LIST, 400, name=name, base_path=f"{name}-2", repository=repository) == {"name": unique}
    assert admin.post(LIST, 400, name=f"{name}-2", base_path=name, repository=repository) == {"base_path": unique}
