"""HTTP as RFC 9110 has it, on every kind of path, as somebody finds it who knows no more than the path."""

from __future__ import annotations

from typing import Any

import pytest

from support.rest_api import API, ApiServer, RestClient

REMOTES = ("remotes/docker/docker/", "remotes/container/container/")


@pytest.fixture(scope="module")
def paths(synced: dict[str, str]) -> dict[str, str]:
    """A path of each kind, with the methods that it has besides ``GET``, ``HEAD`` and ``OPTIONS``."""
    container = synced["repository"].replace("docker", "container")
    return {
        synced["repository"]: "DELETE PATCH PUT",
        synced["remote"]: "DELETE PATCH PUT",
        synced["task"]: "DELETE PATCH",
        f"{synced['repository']}versions/1/": "DELETE PATCH",
        container: "DELETE PATCH PUT",
        f"{container}versions/1/": "DELETE PATCH",
        f"{API}/repositories/docker/docker/": "POST",
        f"{API}/remotes/container/container/": "POST",
        f"{API}/distributions/container/container/": "POST",
        f"{API}/content/container/tags/": "",
        f"{API}/artifacts/": "",
        f"{API}/workers/": "",
        f"{API}/tasks/": "",
        f"{API}/syncs/": "",
        f"{API}/status/": "",
    }


def test_head_is_get_without_the_body(admin: RestClient, paths: dict[str, str]) -> None:
    for path in paths:
        head, get = admin.ask("HEAD", path), admin.ask("GET", path)
        assert (head.status_code, head.content) == (get.status_code, b"") == (200, b""), path
        for name in ("content-type", "etag", "cache-control"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)


def test_every_response_says_who_may_keep_frame_and_guess_it(
    admin: RestClient, api_server: ApiServer, paths: dict[str, str]
) -> None:
    nobody = RestClient(api_server.url)
    for path in paths:
        for response in (
            admin.ask("GET", path),
            nobody.ask("GET", path),
            admin.ask("TRACE", path),
            admin.ask("GET", f"{path}x"),
        ):
            found = response.headers
            assert found["x-content-type-options"] == "nosniff", path
            assert "frame-ancestors 'self'" in found["content-security-policy"], path
            assert {"private", "no-store"} & set(found["cache-control"].replace(" ", "").split(",")), path


def test_another_method_is_405_and_the_allowed_ones_are_said(admin: RestClient, paths: dict[str, str]) -> None:
    for path, more in paths.items():
        allowed = {"GET", "HEAD", "OPTIONS", *more.split()}
        for method in ("OPTIONS", "TRACE", *({"POST", "PUT", "DELETE"} - allowed)):
            response = admin.ask(method, path)
            assert response.status_code == (204 if method == "OPTIONS" else 405), (method, path)
            assert set(response.headers["allow"].split(", ")) == allowed, (method, path)


def test_an_entry_that_has_not_changed_is_not_sent_again(admin: RestClient, paths: dict[str, str]) -> None:
    tagged = 0
    for path, more in paths.items():
        if "PATCH" in more and "/tasks/" not in path:
            etag = admin.ask("GET", path).headers["etag"]
            assert admin.ask("GET", path, headers={"If-None-Match": etag}).status_code == 304, path
            assert admin.ask("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200, path
            late = admin.ask("PATCH", path, {"pulp_labels": {}}, headers={"If-Match": '"other"'})
            assert (late.status_code, late.headers["etag"]) == (412, etag), path
            tagged += 1
    assert tagged == 5


@pytest.mark.parametrize("path", REMOTES)
@pytest.mark.parametrize(
    "url",
    [
        "https://registry.example\n",
        "https://registry\t.example",
        "https://registry.example:0",
        "https://registry.example:99999",
        "https://registry..example",
        "https://.registry.example",
        "https://",
        "ftp://registry.example",
        "https://name:password@registry.example",
        "",
    ],
)
def test_what_is_no_address_of_a_registry_is_400_for_its_field(
    admin: RestClient, name: str, path: str, url: str
) -> None:
    refused = admin.post(path, 400, name=name, url=url, upstream_name="library/app")
    assert list(refused) == ["url"]
    assert len(refused["url"][0]) > 10


def test_a_token_that_is_none_is_401_with_what_to_send(api_server: ApiServer, paths: dict[str, str]) -> None:
    for token in ("", "x", "a.b.c", "ü"):
        response = RestClient(api_server.url).ask(
            "GET", next(iter(paths)), headers={"Authorization": f"Bearer {token}".encode().decode("latin-1")}
        )
        assert response.status_code == 401, token
        assert response.headers["www-authenticate"].startswith("Bearer, Basic realm=")


def test_what_is_wrong_is_said_as_json_for_the_field(admin: RestClient, name: str) -> None:
    given: dict[str, Any] = {"name": name, "retain_repo_versions": "many", "unknown": 1}
    refused = admin.post("repositories/docker/docker/", 400, **given)
    assert refused.keys() == {"retain_repo_versions", "unknown"}
    assert admin.ask("POST", "repositories/docker/docker/", headers={"Content-Type": "text/plain"}).status_code == 400
