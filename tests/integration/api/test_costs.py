"""What a response costs: queries that do not grow with the page, and work that does not grow with the offset."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from support.metadata import Upstream, image, index, sync
from support.rest_api import API, ApiServer, RestClient

UNITS = 10_000
REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"


@contextmanager
def counted_queries() -> Iterator[list[str]]:
    """The statements on either database while it is open."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture(scope="module")
def filled(api_server: ApiServer) -> dict[str, str]:
    """Paths of a repository with two versions and fifty tags on indexes, a remote, and tasks."""
    admin, name = api_server.client(), f"costs-{secrets.token_hex(4)}"
    repository = admin.post(REPOSITORIES, name=name)["pulp_href"]
    remote = admin.post(REMOTES, name=name, url="https://registry.example", upstream_name="library/app")["pulp_href"]
    upstream = Upstream()
    for number in range(50):
        child = image(f"layer {number}", f"other {number}", note=name)
        upstream.tag(f"tag-{number}", index(child, note=name), child)
    record = api_server.database.repositories.by_name(name)
    sync(api_server.database, record, upstream)
    upstream.tag("latest", image("one more", note=name))
    sync(api_server.database, record, upstream)
    for number in range(30):
        admin.post(REPOSITORIES, name=f"{name}-{number}")
        admin.post(REMOTES, name=f"{name}-{number}", url="https://registry.example", upstream_name="library/app")
    tasks = [admin.post(f"{remote}sync/", 202, repository=repository)["task"] for _ in range(30)]
    return {"repository": repository, "remote": remote, "task": tasks[0], "version": f"{repository}versions/2/"}


#: The most queries of a request, Airflow's own included: one that looks whether the token was revoked.
BOUNDS = {
    REPOSITORIES: 3,
    REMOTES: 3,
    "{repository}": 2,
    "{remote}": 2,
    "{repository}versions/": 6,
    "{version}": 4,
    "{version}holds/": 4,
    "{version}missing_manifests/": 4,
    "{version}diff/": 20,
    "{version}provenance/": 6,
    "{repository}usage/": 10,
    "{repository}pulls/": 4,
    "content/docker/blobs/?repository_version={version}": 4,
    "content/docker/manifests/?repository_version={version}": 6,
    "content/docker/tags/?repository_version={version}": 4,
    "tasks/": 9,
    "syncs/": 4,
    "{task}": 7,
    "status/": 4,
    "docs/api.json": 1,
}


@pytest.mark.parametrize("path", BOUNDS)
def test_a_request_takes_a_bounded_number_of_queries(api_server: ApiServer, filled: dict[str, str], path: str) -> None:
    """However many entries there are: a page of one takes as many as a page of all."""
    viewer, full = api_server.client("viewer"), path.format(**filled)
    viewer.get(full)
    taken = []
    is_list = "results" in viewer.get(full)
    for limit in (1, 30) if is_list else (0,):
        with counted_queries() as queries:
            viewer.get(full, **({"limit": limit} if limit else {}))
        # Airflow looks up the teams of DAGs again now and then.
        queries = [query for query in queries if not query.startswith(("PRAGMA", "BEGIN", "SELECT team."))]
        assert len(queries) <= BOUNDS[path], "\n".join(queries)
        taken.append(len(queries))
    assert len(set(taken)) == 1, taken


@pytest.fixture(scope="module")
def large(api_server: ApiServer) -> str:
    """The path of a version with 10,000 tags, manifests and blobs."""
    name = f"large-{secrets.token_hex(4)}"
    repository = api_server.client().post(REPOSITORIES, name=name)["pulp_href"]
    upstream = Upstream()
    for number in range(UNITS):
        upstream.tag(f"tag-{number:05}", image(config=f"{name} {number}"))
    sync(api_server.database, api_server.database.repositories.by_name(name), upstream)
    return f"{repository}versions/1/"


@contextmanager
def counted_work() -> Iterator[list[int]]:
    """Thousands of instructions of SQLite, on any of its connections, while it is open."""
    work, watched = [0], set()

    def count() -> int:
        work[0] += 1
        return 0

    def watch(connection: Any, *_more: Any) -> None:
        database = connection.connection.driver_connection
        database.set_progress_handler(count, 1000)
        watched.add(database)

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        yield work
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
        for database in watched:
            database.set_progress_handler(None, 0)


def work_of(client: RestClient, path: str, offset: int) -> int:
    client.get(path, offset=offset, limit=100)
    with counted_work() as work:
        page = client.get(path, offset=offset, limit=100)
    assert (page["count"], len(page["results"])) == (UNITS, 100)
    return work[0]


@pytest.mark.parametrize("kind", ["tags", "manifests", "blobs"])
def test_the_last_page_of_10_000_units_takes_about_as_much_work_as_the_first(
    api_server: ApiServer, large: str, kind: str
) -> None:
    viewer = api_server.client("viewer")
    path = f"{API}/content/docker/{kind}/?repository_version={large}"
    first, last = work_of(viewer, path, 0), work_of(viewer, path, UNITS - 100)
    assert 0 < last < 3 * first, (first, last)


def test_every_unit_of_10_000_is_on_one_page(api_server: ApiServer, large: str) -> None:
    viewer, names = api_server.client("viewer"), []
    href = f"{API}/content/docker/tags/?repository_version={large}&limit=1000"
    while href:
        page = viewer.get(href)
        names += [tag["name"] for tag in page["results"]]
        href = page["next"]
    assert names == [f"tag-{number:05}" for number in range(UNITS)]
