"""The objects of a kept database are at ``container/container/`` as well, with paths and content types of that form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from registry_sync.api.dependencies import OpenedDatabase
from support import rest_golden
from support.golden.make import DAG_ID
from support.rest_api import API, hrefs_in

_OF_FORM = re.compile(r"/(?:repositories|remotes)/docker/docker/|/content/docker/")


@pytest.fixture(scope="module")
def client(_home_with_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("forms") / "registry_sync.db"
    rest_golden.load_database(file)
    parts = OpenedDatabase()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{file}")
        patch.setenv("AIRFLOW__REGISTRY_SYNC__SYNC_DAG_ID", DAG_ID)
        app: FastAPI = rest_golden.app_on(parts)
        yield TestClient(app, headers={"Authorization": "Bearer x"}, raise_server_exceptions=False)
        parts.close()


def _kept() -> list[tuple[str, int, Any]]:
    responses = (rest_golden.FOLDER / "responses.json").read_text(encoding="utf-8")
    return [(path, status, body) for path, status, body in json.loads(responses) if _OF_FORM.search(path)]


def _in_form(text: str) -> str:
    """A path, or a whole document, of the kept responses in the other form."""
    moved = re.sub(r"/(repositories|remotes)/docker/docker/", r"/\1/container/container/", text)
    moved = moved.replace("/content/docker/", "/content/container/")
    return re.sub(r'"docker\.(tag|manifest|blob)"', r'"container.\1"', moved)


def _same_in(document: Any, kept: Any) -> bool:
    """Whether ``document`` has all that is in ``kept``, except what has another form in Pulp's clients of today."""
    if isinstance(kept, dict):
        renamed = {"ssl_validation", "ssl_ca_certificate", "ssl_client_certificate", "whitelist_tags", "exclude_tags"}
        hidden = {"ssl_client_key", "username", "password", "listed_manifests"}
        return all(_same_in(document[name], value) for name, value in kept.items() if name not in renamed | hidden)
    if isinstance(kept, list):
        return len(document) == len(kept) and all(map(_same_in, document, kept))
    return bool(document == kept)


def test_every_read_is_there_in_the_other_form(client: TestClient) -> None:
    kept = _kept()
    assert len(kept) > 100
    for path, status, body in kept:
        response = client.get(_in_form(path).removeprefix("/pulp"))
        assert response.status_code == status, path
        if status == 200:
            found = response.json()
            # The neighbours of a page are URLs in this form.
            neighbours = {
                name: value.removeprefix("http://testserver")
                for name, value in found.items()
                if name in ("next", "previous") and isinstance(value, str)
            }
            assert all(f"http://testserver{at}" == found[name] for name, at in neighbours.items()), (
                path,
                found["next"],
            )
            assert _same_in(found | neighbours, json.loads(_in_form(json.dumps(body)))), path
            assert not any("/docker/" in href for href in hrefs_in(response.json())), path
        else:
            # A filter that there is not is named in Pulp's way.
            assert list(response.json()) == ["errors" if name == "nonsense" else name for name in body], path


def test_an_object_is_named_in_either_form_in_requests(client: TestClient) -> None:
    version = next(path for path, status, _ in _kept() if re.search(r"/versions/1/$", path) and status == 200)
    for named in (version, _in_form(version)):
        found = client.get(f"{API}/content/container/tags/?repository_version={named}".removeprefix("/pulp"))
        assert found.status_code == 200
        assert found.json()["count"] > 0


def test_content_names_the_bytes_that_are_stored(client: TestClient) -> None:
    blobs = client.get("/api/v3/content/container/blobs/?limit=1000").json()["results"]
    assert {blob["is_stored"] for blob in blobs} == {True, False}
    assert all((blob["artifact"] is not None) == blob["is_stored"] for blob in blobs)
    manifests = client.get("/api/v3/content/container/manifests/?limit=1000").json()["results"]
    for unit in [*(blob for blob in blobs if blob["is_stored"])][:3] + manifests[:3]:
        artifact = client.get(unit["artifact"].removeprefix("/pulp")).json()
        assert (f"sha256:{artifact['sha256']}", artifact["size"]) == (unit["digest"], unit["size"])
    lost = next(blob["digest"].partition(":")[2] for blob in blobs if not blob["is_stored"])
    assert [client.get(f"/api/v3/artifacts/{name}/").status_code for name in (lost, "nonsense")] == [404, 404]


def test_paths_without_a_plugin_have_no_other_form(client: TestClient) -> None:
    paths = client.get("/api/v3/docs/api.json?pk_path=1").json()["paths"]
    docker = {path for path in paths if "/docker/" in path}
    container = {path for path in paths if "/container/" in path}
    assert {path.replace("docker", "container") for path in docker} <= container
    assert "/api/v3/tasks/" in set(paths) - docker - container
