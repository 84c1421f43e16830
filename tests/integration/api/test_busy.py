"""The API while its database is locked, and while many change one thing at once."""

from __future__ import annotations

import json
import secrets
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from support.rest_api import API, ApiServer, RestClient

REPOSITORIES, REMOTES = "repositories/docker/docker/", "remotes/docker/docker/"
HUB = {"url": "https://registry-1.docker.io", "upstream_name": "library/hello-world"}


@contextmanager
def write_lock(path: str) -> Iterator[None]:
    """Another process's lock of a SQLite file."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.close()


def our_file(server: ApiServer) -> str:
    return server.database.location.removeprefix("sqlite:///")


def sent_post(server: ApiServer, path: str, document: dict[str, Any]) -> socket.socket:
    """A POST that has been sent, and whose answer waits to be read."""
    body = json.dumps(document)
    where = urlsplit(server.url)
    sending = socket.create_connection((where.hostname, where.port), timeout=60)
    head = {
        "Host": where.netloc, "Authorization": f"Bearer {server.tokens['admin']}", "Content-Type": "application/json",
        "Content-Length": str(len(body)), "Connection": "close",
    }  # fmt: skip
    lines = [f"POST {API}/{path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", body]
    sending.sendall("\r\n".join(lines).encode())
    return sending


def status_of(sending: socket.socket) -> int:
    with sending, sending.makefile("rb") as response:
        return int(response.readline().split()[1])


def test_airflows_own_routes_answer_while_many_requests_of_ours_wait_for_a_lock(api_server: ApiServer) -> None:
    admin, prefix = api_server.client(), f"waiting-{secrets.token_hex(4)}"
    admin.get(REPOSITORIES)
    with write_lock(our_file(api_server)):
        waiting = [sent_post(api_server, REPOSITORIES, {"name": f"{prefix}-{number}"}) for number in range(45)]
        answered = admin.session.get(
            f"{api_server.url}/api/v2/dags", headers={"Authorization": f"Bearer {admin.token}"}, timeout=4
        )
    assert answered.status_code == 200
    assert [status_of(sending) for sending in waiting] == [201] * 45
    assert admin.get(REPOSITORIES, name__icontains=prefix, limit=1)["count"] == 45


def test_a_lock_that_stays_gets_a_response_soon_with_when_to_retry(admin: RestClient, api_server: ApiServer) -> None:
    with write_lock(our_file(api_server)):
        response = admin.ask("POST", REPOSITORIES, {"name": f"late-{secrets.token_hex(4)}"})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "the metadata database is busy" in response.json()["detail"]


def test_changes_of_different_fields_at_once_are_all_kept(admin: RestClient, api_server: ApiServer, name: str) -> None:
    remote = admin.post(REMOTES, name=name, **HUB)["pulp_href"]
    repository = admin.post(REPOSITORIES, name=name)["pulp_href"]
    changes: list[tuple[str, dict[str, Any]]] = [
        (remote, {"policy": "streamed"}), (remote, {"download_concurrency": 7}), (remote, {"whitelist_tags": "a"}),
        (remote, {"exclude_tags": "b"}), (remote, {"allow_sparse": True}), (remote, {"include_referrers": False}),
        (remote, {"max_removed_tags": 3}), (remote, {"pulp_labels": {"a": "b"}}), (repository, {"description": "c"}),
        (repository, {"retain_repo_versions": 4}), (repository, {"pulp_labels": {"d": "e"}}),
    ]  # fmt: skip
    barrier = threading.Barrier(len(changes))

    def change(number: int) -> None:
        client = api_server.client()
        barrier.wait(timeout=60)
        client.patch(changes[number][0], **changes[number][1])

    with ThreadPoolExecutor(len(changes)) as pool:
        list(pool.map(change, range(len(changes))))
    for href in (remote, repository):
        stored = admin.get(href)
        wanted = {field: value for of, fields in changes if of == href for field, value in fields.items()}
        assert {field: stored[field] for field in wanted} == wanted
