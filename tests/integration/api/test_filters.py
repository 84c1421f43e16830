"""Lists as Pulp's clients ask for them, on a kept database: filters, expressions, fields, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry_sync.api.dependencies import OpenedDatabase
from support import rest_golden
from support.golden.make import DAG_ID

REPOSITORIES, REMOTES = "repositories/container/container/", "remotes/container/container/"
CONTENT = ("content/container/blobs/", "content/container/manifests/", "content/container/tags/")


@pytest.fixture(scope="module")
def client(_home_with_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The app on the kept database."""
    file = tmp_path_factory.mktemp("filters") / "registry_sync.db"
    rest_golden.load_database(file)
    parts = OpenedDatabase()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{file}")
        patch.setenv("AIRFLOW__REGISTRY_SYNC__SYNC_DAG_ID", DAG_ID)
        yield TestClient(rest_golden.app_on(parts), headers={"Authorization": "Bearer x"})
        parts.close()


def page(client: TestClient, path: str, **query: Any) -> Any:
    response = client.get(f"/api/v3/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def names(client: TestClient, path: str, **query: Any) -> list[str]:
    return [entry["name"] for entry in page(client, path, **query)["results"]]


def refused(client: TestClient, path: str, **query: Any) -> Any:
    response = client.get(f"/api/v3/{path}", params=query)
    assert response.status_code == 400, response.text
    return response.json()


def test_repositories_by_their_names(client: TestClient) -> None:
    everything = names(client, REPOSITORIES)
    assert len(everything) > 3
    assert everything == sorted(everything)
    kept = [name for name in everything if "e" in name]
    assert names(client, REPOSITORIES, name__contains="e") == kept != everything
    assert names(client, REPOSITORIES, name__contains="E") == []
    assert names(client, REPOSITORIES, name__icontains="E") == kept
    assert names(client, REPOSITORIES, name__contains="%") == []
    begun = [name for name in everything if name.startswith("ke")]
    assert names(client, REPOSITORIES, name__startswith="ke") == begun != []
    assert names(client, REPOSITORIES, name__startswith="KE") == []
    assert names(client, REPOSITORIES, name__istartswith="KE") == begun
    assert names(client, REPOSITORIES, name__iexact="KEPT") == ["kept"]
    assert names(client, REPOSITORIES, name__in="kept,nobody") == ["kept"]
    assert names(client, REPOSITORIES, name__in=["kept", everything[0]]) == sorted({"kept", everything[0]})
    assert names(client, REPOSITORIES, name__in="") == []
    assert names(client, REPOSITORIES, ordering="-name") == everything[::-1]
    assert names(client, REPOSITORIES, ordering="-pulp_created,name") == names(
        client, REPOSITORIES, ordering=["-pulp_created", "name"]
    )


@pytest.mark.parametrize("path", [REPOSITORIES, REMOTES, *CONTENT])
def test_everything_by_its_path_and_its_prn(client: TestClient, path: str) -> None:
    results = page(client, path, limit=3)["results"]
    assert len(results) > 1
    for key in ("pulp_href", "prn"):
        wanted = [entry[key] for entry in results[:2]]
        found = page(client, path, **{f"{key}__in": ",".join(wanted)})["results"]
        assert sorted(entry[key] for entry in found) == sorted(wanted)
    assert "prn__in" in refused(client, path, prn__in="prn:core.task:fcf03266-f0e4-4497-8434-0fe9d94c8053")
    assert "pulp_href__in" in refused(client, path, pulp_href__in="/pulp/api/v3/status/")


def test_an_expression_combines_filters(client: TestClient) -> None:
    everything = names(client, REPOSITORIES)
    assert names(client, REPOSITORIES, q="name=kept") == ["kept"]
    assert names(client, REPOSITORIES, q="NOT name=kept") == [name for name in everything if name != "kept"]
    both = 'name="kept" OR (name__startswith=t AND NOT name__contains=x)'
    assert names(client, REPOSITORIES, q=both) == [
        name for name in everything if name == "kept" or (name.startswith("t") and "x" not in name)
    ]
    assert names(client, REPOSITORIES, q='name__in="kept,nobody"', name__contains="z") == []
    href = page(client, REPOSITORIES, name="kept")["results"][0]["pulp_href"]
    assert names(client, REPOSITORIES, q=f"pulp_href__in={href}") == ["kept"]
    for wrong in ("name", "color=red", "name=kept AND", "limit=1", "pulp_href__in=x", "q=x"):
        assert list(refused(client, REPOSITORIES, q=wrong)) == ["q"], wrong


def test_labels_select(client: TestClient) -> None:
    labels = {entry["name"]: entry["pulp_labels"] for entry in page(client, REPOSITORIES)["results"]}
    assert {"a": "b"} in labels.values()
    with_b = [name for name, found in labels.items() if found.get("a") == "b"]
    assert names(client, REPOSITORIES, pulp_label_select="a=b") == with_b
    assert names(client, REPOSITORIES, pulp_label_select="a") == [name for name in labels if "a" in labels[name]]
    assert names(client, REPOSITORIES, pulp_label_select="!a") == [name for name in labels if "a" not in labels[name]]
    assert names(client, REPOSITORIES, pulp_label_select="a!=b") == [
        name for name, found in labels.items() if found.get("a", "b") != "b"
    ]
    assert names(client, REPOSITORIES, pulp_label_select="a~b,!x") == with_b
    assert names(client, REPOSITORIES, q='pulp_label_select="a=b"') == with_b
    assert names(client, REPOSITORIES, q='NOT pulp_label_select="a=b"') == [
        name for name in labels if name not in with_b
    ]
    assert "pulp_label_select" in refused(client, REPOSITORIES, pulp_label_select="a=b,,")


def test_repositories_and_versions_by_their_content(client: TestClient) -> None:
    seen = 0
    for repository in page(client, REPOSITORIES)["results"]:
        versions = page(client, repository["versions_href"].removeprefix("/pulp/api/v3/"))["results"]
        for version in versions:
            tags = page(client, CONTENT[2], repository_version=version["pulp_href"], limit=1)["results"]
            for tag in tags:
                seen += 1
                found = names(client, REPOSITORIES, latest_with_content=tag["pulp_href"])
                assert (repository["name"] in found) >= (version is versions[0])
                assert repository["name"] in names(client, REPOSITORIES, with_content=tag["prn"])
                of = repository["versions_href"].removeprefix("/pulp/api/v3/")
                holding = page(client, of, content=tag["pulp_href"])["results"]
                assert version["number"] in [one["number"] for one in holding]
                assert page(client, of, content__in=f"{tag['pulp_href']},{tag['pulp_href']}")["count"] == len(holding)
    assert seen > 3
    nothing = f"/pulp/api/v3/{CONTENT[2]}999999/"
    assert names(client, REPOSITORIES, latest_with_content=nothing) == []


def test_versions_by_number_path_and_prn(client: TestClient) -> None:
    repository = page(client, REPOSITORIES, name="kept")["results"][0]
    path = repository["versions_href"].removeprefix("/pulp/api/v3/")
    versions = page(client, path)["results"]
    numbers = [version["number"] for version in versions]
    assert len(numbers) > 1

    def found(**query: Any) -> list[int]:
        return [version["number"] for version in page(client, path, **query)["results"]]

    low, high = min(numbers), max(numbers)
    assert found(number=high) == [high]
    assert found(number__in=f"{low},999") == [low]
    assert found(number__gt=low) == [number for number in numbers if number > low]
    assert found(number__lte=low) == [low]
    assert found(number__range=f"{low},{high}") == numbers
    assert found(q=f"number__gte={high} OR number={low}") == [high, low]
    for version in versions:
        assert found(prn__in=version["prn"]) == found(pulp_href__in=version["pulp_href"]) == [version["number"]]
    assert found(prn__in=f"prn:core.repositoryversion:{uuid.uuid4()}") == []
    assert found(pulp_created__lt="1999-01-01") == []
    assert found(pulp_created__gte="1999-01-01T00:00:00Z") == numbers
    for name, wrong in (("number", "x"), ("number__range", "1"), ("pulp_created", "yesterday"), ("number", "-1")):
        assert list(refused(client, path, **{name: wrong})) == [name]


def test_content_takes_as_many_digests_as_a_client_sends(client: TestClient) -> None:
    manifests = page(client, CONTENT[1], limit=5)["results"]
    wanted = [entry["digest"] for entry in manifests]
    padding = [f"sha256:{number:064x}" for number in range(400)]
    found = page(client, CONTENT[1], digest__in=",".join([*padding, *wanted]))
    assert sorted(entry["digest"] for entry in found["results"]) == sorted(wanted)
    assert "digest__in" in refused(client, CONTENT[1], digest__in=",".join(["x"] * 1001))
    types = sorted({entry["media_type"] for entry in page(client, CONTENT[1])["results"]})[:2]
    counts = [page(client, CONTENT[1], media_type=kind)["count"] for kind in types]
    assert page(client, CONTENT[1], media_type=types)["count"] == sum(counts) > max(counts) > 0


def test_a_parameter_that_is_repeated_or_unknown_is_refused(client: TestClient) -> None:
    assert refused(client, REPOSITORIES, name=["a", "b"]) == {"name": ["Send this parameter once."]}
    assert refused(client, REPOSITORIES, limit=["1", "2"]) == {"limit": ["Send this parameter once."]}
    assert refused(client, REPOSITORIES, color="red") == {"errors": ["Invalid Filter: 'color'"]}


def test_fields_are_selected_and_pages_lead_on_by_urls(client: TestClient) -> None:
    first = page(client, REPOSITORIES, fields="name,prn", limit=1)
    assert [sorted(entry) for entry in first["results"]] == [["name", "prn"]]
    assert first["next"].startswith(f"http://testserver/pulp/api/v3/{REPOSITORIES}?")
    following = client.get(first["next"].replace("/pulp/", "/")).json()
    assert [sorted(entry) for entry in following["results"]] == [["name", "prn"]]
    assert following["results"] != first["results"]
    assert "name" not in page(client, REPOSITORIES, exclude_fields="name")["results"][0]
    href = page(client, REMOTES)["results"][0]["pulp_href"].removeprefix("/pulp/api/v3/")
    assert sorted(page(client, href, fields="name,tls_validation")) == ["name", "tls_validation"]
