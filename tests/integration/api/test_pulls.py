"""The pull API inside Airflow's API server, with its middleware around it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.observability import stats

from registry_sync.domain.digests import Digest
from registry_sync.domain.serving import DistributionSpec
from registry_sync.errors import DatabaseUnavailable
from registry_sync.hooks.stores import open_blob_store
from registry_sync.serve import pull_notes
from registry_sync.serve.mounted import MountedPullApp
from registry_sync.serve.pull_notes import LastPulls
from registry_sync.users.login_limits import PER_ACCOUNT_AND_ADDRESS
from support.pull_server import PullClient
from support.registry import RegistryServer
from support.rest_api import ApiServer
from support.syncing import Installation


class _Client(PullClient):
    def __init__(self, url: str) -> None:
        self.url, self.session = url, requests.Session()
        self.session.trust_env = False


@pytest.fixture(scope="module")
def pulled(api_server: ApiServer) -> Iterator[_Client]:
    """Asks the API server, whose pull API opens with the first request, and notes pulls at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pull_notes, "LastPulls", partial(LastPulls, write_seconds=0.1))
        yield _Client(api_server.url)


@pytest.fixture(scope="module")
def name(api_server: ApiServer, upstream: RegistryServer) -> str:
    """A repository that everybody may pull, and only users and robots under ``private/`` and its name."""
    name = f"pulled-{secrets.token_hex(4)}"
    store = open_blob_store(os.environ["AIRFLOW__REGISTRY_SYNC__BLOB_STORE"])
    Installation(api_server.database, store).sync(name, upstream.url, "library/hello-world")
    repository = api_server.database.repositories.by_name(name).id
    for base_path, is_private in ((name, False), (f"private/{name}", True)):
        spec = DistributionSpec(base_path, base_path, repository, is_private=is_private)
        api_server.database.distributions.create(spec)
    return name


@pytest.mark.rule("B2.5")
def test_a_client_pulls_all_platforms_from_the_api_server(pulled: _Client, name: str, tmp_path: Path) -> None:
    command = ["skopeo", "copy", "--all", "--src-tls-verify=false"]
    subprocess.run([*command, f"docker://{pulled.netloc}/{name}:latest", f"dir:{tmp_path}"], check=True)
    assert len(list(tmp_path.glob("*.manifest.json"))) == 12


def test_replies_are_as_long_as_they_say_for_clients_that_accept_compression(pulled: _Client, name: str) -> None:
    for path in (f"/v2/{name}/manifests/latest", f"/v2/{name}/tags/list"):
        get, head = (pulled.ask(method, path, {"Accept-Encoding": "gzip"}) for method in ("GET", "HEAD"))
        assert get.status_code == head.status_code == 200
        assert get.headers["Content-Encoding"] == "identity"
        assert int(get.headers["Content-Length"]) == int(head.headers["Content-Length"]) == len(get.content)
    manifest = pulled.ask("GET", f"/v2/{name}/manifests/latest", {"Accept-Encoding": "gzip"})
    assert len(manifest.content) > 1024  # from which on Airflow compresses
    assert manifest.headers["Docker-Content-Digest"] == Digest.of(manifest.content)


def test_errors_are_those_of_a_registry(pulled: _Client, name: str) -> None:
    root = pulled.ask("GET", "/v2/")
    assert root.status_code == 401
    assert f'realm="{pulled.url}/v2/token"' in root.headers["WWW-Authenticate"]
    missing = pulled.ask("GET", f"/v2/{name}/manifests/missing")
    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
    assert pulled.ask("POST", f"/v2/{name}/blobs/uploads/").status_code == 405


def test_a_user_of_airflow_logs_in_and_nobody_else_pulls_what_is_private(pulled: _Client, name: str) -> None:
    passwords = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text()
    password = json.loads(passwords)["viewer"]
    path = f"/v2/private/{name}/manifests/latest"
    assert pulled.ask("GET", path).status_code == 401
    assert pulled.ask("GET", path, auth=("viewer", password)).status_code == 200
    assert pulled.ask("GET", path, pulled.token(f"private/{name}", ("viewer", password))).status_code == 200
    assert pulled.ask("GET", path, auth=("viewer", "guessed")).status_code == 401


def test_guesses_over_rest_and_at_pulls_are_counted_together(pulled: _Client) -> None:
    """The address is that of all these tests, so there are few of them."""
    paths = ("/pulp/api/v3/repositories/docker/docker/", "/v2/")
    login = (f"user-{secrets.token_hex(4)}", "a guess")
    statuses = [pulled.ask("GET", paths[number % 2], auth=login).status_code for number in range(7)]
    burst = PER_ACCOUNT_AND_ADDRESS.burst
    assert statuses == [401] * burst + [429] * (7 - burst)
    other = (f"user-{secrets.token_hex(4)}", "a guess")
    assert [pulled.ask("GET", path, auth=other).status_code for path in paths] == [401, 401]


def test_a_database_that_cannot_be_opened_is_503_and_tried_again() -> None:
    opened: list[int] = []

    def open_app(_users: object) -> Any:
        opened.append(1)
        if len(opened) == 1:
            raise DatabaseUnavailable("do-not-tell")
        return _respond

    async def _respond(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app = MountedPullApp(open_app)

    async def ask() -> MutableMapping[str, Any]:
        sent: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/v2/", "headers": [], "app": object()}
        await app(scope, _receive, send)
        assert "do-not-tell" not in str(sent)
        return sent[0]

    async def ask_in_turn() -> list[int]:
        together = await asyncio.gather(ask(), ask())
        return [start["status"] for start in (*together, await ask())]

    assert asyncio.run(ask_in_turn()) == [503, 503, 200]
    assert len(opened) == 2


async def _receive() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_requests_are_counted_in_airflows_metrics_and_tags_have_a_last_pull(
    api_server: ApiServer, pulled: _Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server of these tests is in their process, so that its metrics can be read here."""
    counted: list[tuple[str, Any, Any]] = []
    monkeypatch.setattr(stats, "incr", lambda name, count=1, **more: counted.append((name, count, more.get("tags"))))
    monkeypatch.setattr(stats, "timing", lambda name, _duration, **more: counted.append((name, 1, more.get("tags"))))
    manifest = pulled.ask("GET", f"/v2/{name}/manifests/latest")
    pulled.ask("GET", f"/v2/{name}/manifests/missing")
    of, error = {"kind": "manifests"}, ("registry_sync.pull.errors", 1, {"code": "MANIFEST_UNKNOWN"})
    deadline = time.monotonic() + 30
    while error not in counted:  # a request is counted after its response has been sent
        assert time.monotonic() < deadline, counted
        time.sleep(0.05)
    assert ("registry_sync.pull.requests", 1, {**of, "method": "GET", "status": "200"}) in counted
    assert ("registry_sync.pull.sent_bytes", len(manifest.content), of) in counted
    assert ("registry_sync.pull.manifests", 1, {"by": "tag"}) in counted
    assert ("registry_sync.pull.request_duration", 1, of) in counted
    repository = api_server.database.repositories.by_name(name).id
    while "latest" not in _last_pulls(api_server, repository):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _last_pulls(api_server: ApiServer, repository_id: str) -> set[str]:
    page = api_server.database.last_pulls.tags(repository_id)
    return {entry.name for entry in page.items if entry.last_pulled is not None}
