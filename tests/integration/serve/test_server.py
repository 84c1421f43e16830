"""The server as processes: TLS, workers, and how it ends."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import pytest
import requests

from registry_sync.domain.serving import DistributionSpec
from registry_sync.errors import ConfigurationError
from registry_sync.serve.file_sender import LARGE_BYTES
from registry_sync.serve.stopping import reserve_port
from registry_sync.users.login_limits import PER_ACCOUNT_AND_ADDRESS
from support.certificates import CertificateAuthority
from support.pull_server import PullServer, published_image

_LARGE_BYTES = LARGE_BYTES + 1024 * 1024


def _status_of_a_new_connection(server: PullServer, method: str = "GET") -> int | None:
    """None where it is cut off: a worker may close its socket while the connection waits there."""
    with contextlib.suppress(requests.ConnectionError), requests.Session() as session:
        session.trust_env = False
        session.verify = server.session.verify
        response = session.request(method, f"{server.url}/v2/app/manifests/latest", timeout=30)
        if response.status_code == 503:
            assert response.headers["Retry-After"] == "5"
            assert response.headers["Connection"] == "close"
            assert (b"UNAVAILABLE" in response.content) == (method == "GET")
        return response.status_code
    return None


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_while_downloads_end_new_requests_get_503(tmp_path: Path, scheme: str) -> None:
    here, layer = published_image(tmp_path, _LARGE_BYTES)
    certificate = CertificateAuthority(tmp_path).server() if scheme == "https" else None
    with PullServer(tmp_path, certificate=certificate) as server:
        response = server.session.get(f"{server.url}/v2/app/blobs/{layer}", stream=True, timeout=60)
        assert ("Connection" in response.headers) == (scheme == "http"), "as large files are sent, or as others are"
        first = response.raw.read(1024)
        server.ask_to_stop()
        deadline = time.monotonic() + 20
        while _status_of_a_new_connection(server) != 503:
            assert time.monotonic() < deadline
        # As soon as the workers have closed their sockets there is nobody else to accept a connection.
        while [_status_of_a_new_connection(server, "HEAD") for _ in range(10)] != [503] * 10:
            assert time.monotonic() < deadline
        rest = response.raw.read()
    assert len(first) + len(rest) == _LARGE_BYTES
    here.database.close()


def test_a_port_on_which_somebody_listens_is_not_shared() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ConfigurationError, match="in use"):
            reserve_port("127.0.0.1", listener.getsockname()[1])


@pytest.mark.rule("B2.10")
def test_https_is_served_and_challenges_name_it(tmp_path: Path) -> None:
    here, _ = published_image(tmp_path, 100)
    authority = CertificateAuthority(tmp_path)
    with PullServer(tmp_path, certificate=authority.server()) as server:
        root = requests.get(f"{server.url}/v2/", verify=str(authority.certificate_path), timeout=30)
        assert f'realm="https://{server.netloc}/v2/token"' in root.headers["WWW-Authenticate"]
    here.database.close()


def test_workers_accept_each_others_tokens_see_a_commit_at_once_and_count_guesses_together(tmp_path: Path) -> None:
    here, _ = published_image(tmp_path, 100)
    repository = here.database.repositories.by_name("app")
    private = here.database.distributions.create(DistributionSpec("private", "private", repository.id))
    _, secret = here.database.robots.create("ci", ["*"])
    log = tmp_path / "access.jsonl"
    with PullServer(tmp_path, workers=2, metrics="127.0.0.1:0", access_log=str(log)) as server:
        token = server.token("private", ("ci", secret))
        statuses: list[int] = []

        def pull() -> None:
            with requests.Session() as session:  # a connection of its own, to whichever worker takes it
                found = session.get(f"{server.url}/v2/private/manifests/latest", headers=token, timeout=30)
                statuses.append(found.status_code)

        threads = [threading.Thread(target=pull) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 16
        assert len(server.metrics_ports) == 2
        for port in server.metrics_ports:  # each worker has the sum of both
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
            assert 'registry_sync_pulls_total{by="tag"} 16' in text
        wrong = f"{secret[:-1]}~"
        guesses = [requests.get(f"{server.url}/v2/", auth=("ci", wrong), timeout=30).status_code for _ in range(30)]
        burst = PER_ACCOUNT_AND_ADDRESS.burst
        assert guesses == [401] * burst + [429] * (30 - burst), "each on a connection of its own, to either worker"
        here.database.distributions.delete(private.id)
        assert server.ask("GET", "/v2/private/manifests/latest", token).status_code == 404
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["account"] for line in lines if line.get("digest")] == ["robot:ci"] * 16
    here.database.close()
