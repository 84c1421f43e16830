"""Large blobs go past the server that accepted the connection, and clients see nothing of it but its end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

import psutil
import pytest
import requests

from registry_sync.blobs.layout import blob_name
from registry_sync.domain.digests import Digest
from registry_sync.serve.file_sender import LARGE_BYTES
from support.hostile_registry import wait_until
from support.nginx import Nginx
from support.pull_server import PullServer, published_image
from support.syncing import Installation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="large files are sent as Linux sends them")
#: More than the kernel takes for a client that does not read.
_LAYER_BYTES = LARGE_BYTES + 8 * 1024 * 1024


@dataclass
class Response:
    """As it came over a connection."""

    version: str
    status: int
    headers: Message
    body: bytes

    @property
    def ends_connection(self) -> bool:
        """Whether it says so."""
        return self.headers["Connection"] == "close"

    def unlike_the_connection(self) -> dict[str, str]:
        """Its headers but those that differ between any two responses."""
        return {name: value for name, value in self.headers.items() if name not in ("connection", "date")}


class Client:
    """One connection, over which requests are sent as they are given."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.connection = socket.create_connection((host, port), timeout=30)
        self._stream = self.connection.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stream.close()
        self.connection.close()

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, version: str = "1.1") -> None:
        """Sends a request, and does not wait for its response."""
        lines = [f"{method} {path} HTTP/{version}", "Host: x", *(f"{n}: {v}" for n, v in (headers or {}).items())]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())

    def read_head(self) -> Response:
        """Status and headers of the next response."""
        version, status, _ = self._stream.readline().split(b" ", 2)
        head = b""
        while (line := self._stream.readline()).strip():
            head += line
        return Response(version.decode(), int(status), BytesHeaderParser().parsebytes(head), b"")

    def read(self, method: str = "GET") -> Response:
        """The next response, of a request with ``method``."""
        found = self.read_head()
        if found.status == 100:
            found = self.read_head()
        if method != "HEAD" and found.status != 304:
            found.body = self._stream.read(int(found.headers["Content-Length"]))
        return found

    def read_to_the_end(self) -> int:
        """How many bytes still come before the connection ends or is reset."""
        count = 0
        with contextlib.suppress(ConnectionResetError):
            while part := self._stream.read1(1 << 20):
                count += len(part)
        return count

    @property
    def has_ended(self) -> bool:
        """Whether nothing comes any more; waits for it."""
        return self._stream.read(1) == b""


@dataclass(frozen=True)
class Large:
    """Serves ``app`` with one layer, ``data``."""

    server: PullServer
    layer: Digest
    here: Installation
    access_log: Path

    @property
    def path(self) -> str:
        return f"/v2/app/blobs/{self.layer}"

    @property
    def stored(self) -> Path:
        return Path(self.server.folder, "blobs", blob_name(self.layer))

    @property
    def data(self) -> bytes:
        return self.stored.read_bytes()

    def worker(self) -> psutil.Process:
        return next(found for found in self.server.processes() if found.num_threads() > 4)

    def held(self) -> int:
        """How many times the worker has the layer open, and connections."""
        worker = self.worker()
        files = sum(found.path == str(self.stored) for found in worker.open_files())
        return files + sum(found.status != psutil.CONN_LISTEN for found in worker.net_connections("tcp"))

    def logged(self) -> dict[str, object]:
        """The last GET of the layer."""
        lines = [json.loads(line) for line in self.access_log.read_text().splitlines()]
        return next(line for line in reversed(lines) if line["kind"] == "blobs" and line["method"] == "GET")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    folder = tmp_path_factory.mktemp("large")
    here, layer = published_image(folder, _LAYER_BYTES)
    log = folder / "access.jsonl"
    with PullServer(folder, access_log=str(log), read_seconds=5) as server:
        server.session.close()  # it asked until the server was ready
        yield Large(server, Digest(layer), here, log)
        assert server.log.count("[ERROR]") <= 1, "that of the file that was cut"
    here.database.close()


def test_after_any_other_responses_a_large_blob_ends_its_connection_with_the_headers_of_head(large: Large) -> None:
    """What the server wrote before is counted by the byte, so each kind of response has to be known."""
    asked: list[tuple[str, str, dict[str, str], int]] = [
        ("GET", "/v2/", {}, 401),
        ("GET", "/v2/app/manifests/latest", {}, 200),
        ("HEAD", "/v2/app/manifests/latest", {}, 200),
        ("GET", "/v2/app/manifests/latest", {"If-None-Match": "*"}, 304),
        ("GET", "/v2/app/manifests/none", {}, 404),
        ("GET", "/v2/app/tags/list", {}, 200),
        ("GET", "/v2/_catalog", {}, 200),
        ("GET", "/v2/app/blobs/sha256:1", {}, 400),
        ("GET", large.path, {"Range": "bytes=1-2"}, 206),
        ("GET", large.path, {"Range": f"bytes=9-{LARGE_BYTES + 7}"}, 206),
        ("GET", large.path, {"Range": f"bytes={_LAYER_BYTES}-"}, 416),
        ("POST", "/v2/app/blobs/uploads/", {"Content-Length": "0"}, 405),
        ("HEAD", large.path, {}, 200),
    ]
    with Client(large.server.port) as client:
        for method, path, headers, status in asked:
            client.ask(method, path, headers)
            response = client.read(method)
            assert (response.status, response.ends_connection) == (status, False), path
        client.ask("GET", large.path, {"Connection": "keep-alive"})
        found = client.read()
        assert found.ends_connection, "it was sent by the server"
        assert found.body == large.data
        assert found.unlike_the_connection() == response.unlike_the_connection()
        assert list(found.headers)[:-1] == list(response.headers)
        assert client.has_ended
    assert wait_until(lambda: large.logged()["bytes"] == _LAYER_BYTES, 20)
    assert wait_until(lambda: large.held() == 0, 20)


def test_ranges_are_sent_in_the_same_way(large: Large) -> None:
    with Client(large.server.port) as client:
        etag = f'"{large.layer}"'
        client.ask("GET", large.path, {"Range": "bytes=5-", "If-Range": etag})
        found = client.read()
        assert (found.status, found.ends_connection) == (206, True)
        assert found.headers["Content-Range"] == f"bytes 5-{_LAYER_BYTES - 1}/{_LAYER_BYTES}"
        assert found.body == large.data[5:]
    with Client(large.server.port) as client:
        client.ask("GET", large.path, {"Range": "bytes=5-", "If-Range": '"another"'})
        assert (client.read().body, client.has_ended) == (large.data, True)


def test_requests_sent_ahead_get_their_responses_in_order_or_none(large: Large) -> None:
    """All at once: what the server has not written yet must not be overtaken."""
    part = {"Range": f"bytes=0-{LARGE_BYTES - 2}"}
    with Client(large.server.port) as client:
        for headers in (part, part, {}, part):
            client.ask("GET", large.path, headers)
        assert [client.read().body for _ in range(2)] == [large.data[: LARGE_BYTES - 1]] * 2
        found = client.read()
        assert found.body == large.data
        if found.ends_connection:
            assert client.has_ended
        else:
            assert client.read().body == large.data[: LARGE_BYTES - 1]
    with Client(large.server.port) as client:
        for path in (large.path, "/v2/app/manifests/latest"):
            client.ask("GET", path)
        found = client.read()
        assert (found.body, found.ends_connection) == (large.data, True)
        assert client.has_ended, "a request after the last response is for another connection"


def test_old_clients_and_requests_with_a_body_are_served_too(large: Large) -> None:
    for version, headers in (("1.0", {}), ("1.0", {"Connection": "keep-alive"}), ("1.1", {"Connection": "close"})):
        with Client(large.server.port) as client:
            client.ask("GET", large.path, headers, version)
            found = client.read()
            assert (found.version, found.body, client.has_ended) == (f"HTTP/{version}", large.data, True)
    for headers in ({"Content-Length": "3"}, {"Content-Length": "3", "Expect": "100-continue"}):
        with Client(large.server.port) as client:
            client.ask("GET", large.path, headers)
            client.connection.sendall(b"abc")
            assert client.read().body == large.data
            client.ask("GET", "/v2/app/manifests/latest")
            assert client.read().status == 200, "the server has kept it"


def test_a_client_that_ends_its_side_after_the_request_gets_everything(large: Large) -> None:
    with Client(large.server.port) as client:
        client.ask("GET", large.path)
        assert client.read_head().status == 200
        client.connection.shutdown(socket.SHUT_WR)
        assert client.read_to_the_end() == _LAYER_BYTES


def test_a_client_that_goes_away_is_counted_and_leaves_nothing(large: Large) -> None:
    with Client(large.server.port) as client:
        client.ask("GET", large.path)
        client.read_head()
        assert large.held()
    assert wait_until(lambda: large.held() == 0, 20)
    assert wait_until(lambda: large.logged()["bytes"] != _LAYER_BYTES, 20)


def test_a_client_that_does_not_read_is_reset(large: Large) -> None:
    with Client(large.server.port) as client:
        client.ask("GET", large.path)
        assert wait_until(lambda: "took less than" in large.server.log, 60)
        assert client.read_to_the_end() < _LAYER_BYTES
    assert wait_until(lambda: large.held() == 0, 20)


def test_a_file_that_is_cut_meanwhile_ends_the_connection_before_its_length(large: Large) -> None:
    last = large.data[-1:]
    with Client(large.server.port) as client:
        client.ask("GET", large.path)
        client.read_head()
        os.truncate(large.stored, _LAYER_BYTES - 1)
        received = client.read_to_the_end()
    with large.stored.open("ab") as file:
        file.write(last)
    assert received < _LAYER_BYTES
    assert wait_until(lambda: f"1 of {_LAYER_BYTES} bytes are missing" in large.server.log, 20)
    assert wait_until(lambda: large.held() == 0, 20)


def test_over_ipv6_and_behind_a_proxy_that_keeps_its_connections(large: Large, tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    with PullServer(large.server.folder, host="::", trusted_proxies=["127.0.0.0/8", "::ffff:127.0.0.0/104"]) as server:
        for host in ("::1", "127.0.0.1"):
            with Client(server.port, host) as client:
                client.ask("GET", large.path)
                found = client.read()
                assert (found.body, found.ends_connection) == (large.data, True), host

        def blocks(port: int) -> str:
            return f"""
                upstream registry_sync {{ server 127.0.0.1:{server.port}; keepalive 4; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://registry_sync; proxy_http_version 1.1; proxy_set_header Connection "";
                        proxy_set_header X-Forwarded-For 192.0.2.7; proxy_max_temp_file_size 0;
                    }}
                }}"""

        with Nginx(tmp_path / "nginx", blocks) as nginx, requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{nginx.port}"
            for _ in range(3):
                assert session.get(f"{url}/v2/app/manifests/latest", timeout=30).status_code == 200
                assert session.get(url + large.path, timeout=30).content == large.data, nginx.log
            assert "reset by peer" not in nginx.log


def test_skopeo_copies_it(large: Large, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    words = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{large.server.netloc}/app:latest", f"dir:{target}"]
    subprocess.run(words, check=True, capture_output=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)})
    assert (target / large.layer.encoded).read_bytes() == large.data
