"""Who may do what under SimpleAuthManager, and which pages may ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from registry_sync.api.access import AccessCheck
from support.rest_api import API, ROLES, ApiServer, RestClient, application, hrefs_in, one_of_each_route

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"
#: Statuses for viewer, user, op and admin.
READ = (200, 200, 200, 200)
CHANGE = (403, 403, 200, 200)


def routes() -> list[APIRoute]:
    """Every operation that the API has, also those that its document leaves out."""
    return [route for route in flattened(application().routes) if isinstance(route, APIRoute)]


def flattened(found: Any) -> Iterator[Any]:
    for route in found:
        inner = getattr(route, "routes", None)
        if inner:
            yield from flattened(inner)
        else:
            yield route


def test_every_route_has_an_access_check() -> None:
    """A route without one, or one that is mounted past FastAPI's dependencies, fails here."""
    app = application()
    assert all(isinstance(route, APIRoute) for route in flattened(app.routes)), app.routes
    unchecked = [
        route.path
        for route in routes()
        if not any(isinstance(dependency.call, AccessCheck) for dependency in route.dependant.dependencies)
    ]
    # Registries have the secret of their webhook, Pulp's clients read what the API is before they log in, and the page
    # that asks a person to sign in has a style.
    assert [path.removeprefix("/api/v3/") for path in unchecked] == [
        "webhooks/{webhook_id}/",
        "docs/api.json",
        "/pages/static/{name}",
    ]
    assert len(routes()) > 25


@pytest.fixture(scope="module")
def every_href(api_server: ApiServer, synced: dict[str, Any]) -> list[str]:
    """Every path in every answer that can be reached from the lists, each once."""
    viewer = api_server.client("viewer")
    found: dict[str, None] = {}
    waiting = [f"{API}/{REPOSITORIES}?name={synced['name']}", f"{API}/{REMOTES}?name={synced['name']}"]
    waiting += [
        synced["task"],
        f"{API}/syncs/?repository={synced['repository']}",
        f"{API}/status/",
        f"{API}/content/docker/tags/?limit=1&repository_version={synced['repository']}versions/1/",
    ]
    while waiting:
        href = waiting.pop()
        if href in found:
            continue
        found[href] = None
        assert len(found) < 500
        waiting += hrefs_in(viewer.get(href))
    return list(found)


def test_every_href_resolves_for_who_may_read(api_server: ApiServer, every_href: list[str]) -> None:
    """The viewer has read each already; access is decided by the route, so the others read one of each."""
    for href in one_of_each_route(every_href):
        assert statuses(api_server, "GET", href) == READ, href
    kinds = ("/versions/1/", "/versions/2/", "/blobs/?repo", "/manifests/?repo", "/tags/?repo", "_removed=", "_added=")
    for kind in kinds:
        assert any(kind in href for href in every_href), kind
    for unit in ("blobs", "manifests", "tags"):
        assert any(href.split("/")[-3] == unit for href in every_href)


def test_the_count_of_a_summary_is_that_of_the_list_it_links(api_server: ApiServer, synced: dict[str, Any]) -> None:
    viewer = api_server.client("viewer")
    for version in viewer.get(f"{synced['repository']}versions/")["results"]:
        for part in version["content_summary"].values():
            for units in part.values():
                assert viewer.get(units["href"])["count"] == units["count"] > 0


def test_no_href_is_open_to_nobody_or_to_a_token_that_is_none(api_server: ApiServer, every_href: list[str]) -> None:
    for href in (*one_of_each_route(every_href), f"{API}/docs/", "/pulp/", "/pulp/no/such/path"):
        response = api_server.client(None).ask("GET", href)
        assert response.status_code == 401, href
        assert response.headers["www-authenticate"].startswith("Bearer, Basic realm="), href
        forged = RestClient(api_server.url, f"{api_server.tokens['admin'][:-4]}AAAA")
        assert forged.ask("GET", href).status_code in (401, 404), href
        assert href.startswith("/pulp/no") or href == "/pulp/" or forged.ask("GET", href).status_code != 404


def statuses(api_server: ApiServer, method: str, path: str, document: Any = None) -> tuple[int, ...]:
    """What each role is answered."""
    return tuple(api_server.client(role).ask(method, path, document).status_code for role in ROLES)


@pytest.mark.parametrize(
    "path", [REPOSITORIES, REMOTES, "tasks/", "syncs/", "content/docker/blobs/", "status/", "docs/"]
)
def test_everybody_who_may_see_the_dag_may_read(api_server: ApiServer, path: str) -> None:
    assert statuses(api_server, "GET", path) == READ


def test_syncing_takes_the_right_to_run_the_dag(api_server: ApiServer, synced: dict[str, Any]) -> None:
    path, document = f"{synced['remote']}sync/", {"repository": synced["repository"]}
    assert statuses(api_server, "POST", path, document) == (403, 202, 202, 202)
    path, document = f"{synced['repository']}sync/", {"remote": synced["remote"]}
    assert statuses(api_server, "POST", path, document) == (403, 202, 202, 202)


def test_canceling_takes_the_right_to_change_its_runs(api_server: ApiServer, synced: dict[str, Any]) -> None:
    assert statuses(api_server, "PATCH", synced["task"], {"state": "canceled"}) == (403, 200, 409, 409)


def test_changing_takes_the_right_to_do_it_with_connections(api_server: ApiServer, synced: dict[str, Any]) -> None:
    for kind in ("repository", "remote"):
        assert statuses(api_server, "PATCH", synced[kind], {"pulp_labels": {"a": "b"}}) == CHANGE
    assert statuses(api_server, "PUT", synced["repository"], {"name": synced["name"]}) == CHANGE
    assert statuses(api_server, "POST", REPOSITORIES, {"name": f"{synced['name']}-new"}) == (403, 403, 201, 400)
    remote = {"name": f"{synced['name']}-new", "url": "https://registry.example", "upstream_name": "app"}
    assert statuses(api_server, "POST", REMOTES, remote) == (403, 403, 201, 400)
    for path in (REPOSITORIES, REMOTES):
        made = api_server.client().get(path, name=f"{synced['name']}-new")["results"][0]["pulp_href"]
        assert statuses(api_server, "DELETE", made) == (403, 403, 204, 404)


def test_who_may_not_change_learns_nothing_of_what_is_there(api_server: ApiServer) -> None:
    """The refusal comes before anything is looked up."""
    nothing = f"{REPOSITORIES}fcf03266-f0e4-4497-8434-0fe9d94c8053/"
    assert statuses(api_server, "DELETE", nothing) == (403, 403, 404, 404)


# -- pages of others ---------------------------------------------------------------------------------------


def by_cookie(api_server: ApiServer, method: str, path: str, document: Any = None, **headers: str) -> int:
    """The status for a browser that is signed in."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent["Cookie"] = f"_token={api_server.tokens['admin']}"
    return api_server.client(None).ask(method, path, document, headers=sent).status_code


def test_a_session_is_enough_to_read_and_to_change(api_server: ApiServer, name: str) -> None:
    assert by_cookie(api_server, "GET", REPOSITORIES) == 200
    assert by_cookie(api_server, "POST", REPOSITORIES, {"name": name}) == 201
    assert by_cookie(api_server, "POST", REPOSITORIES, {"name": f"{name}-2"}, Origin=api_server.url) == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_foreign_page_is_refused_and_changes_nothing(
    api_server: ApiServer, admin: RestClient, name: str, headers: dict[str, str]
) -> None:
    assert by_cookie(api_server, "POST", REPOSITORIES, {"name": name}, **headers) == 403
    assert by_cookie(api_server, "GET", REPOSITORIES, **headers) == 403
    assert admin.get(REPOSITORIES, name=name)["count"] == 0


def test_a_form_of_a_foreign_page_is_no_document(api_server: ApiServer, name: str) -> None:
    """Without an Origin, as old browsers send it: only application/json is read, which a form cannot send."""
    response = api_server.client(None).session.post(
        f"{api_server.url}{API}/{REPOSITORIES}",
        data=f'{{"name": "{name}"}}',
        headers={"Cookie": f"_token={api_server.tokens['admin']}", "Content-Type": "text/plain"},
        timeout=60,
    )
    assert response.status_code == 400


def test_a_page_that_the_operator_allows_may_ask(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__ACCESS_CONTROL_ALLOW_ORIGINS", "https://dashboard.example https://b.example")
    assert by_cookie(api_server, "GET", REPOSITORIES, Origin="https://dashboard.example") == 200
    assert by_cookie(api_server, "GET", REPOSITORIES, Origin="https://other.example") == 403


def test_the_address_that_people_use_is_known_behind_a_proxy(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/somewhere")
    assert by_cookie(api_server, "GET", REPOSITORIES, Origin="https://airflow.example") == 200
