"""The clients of the benchmark ask for everything once, and take no wrong response for a right one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from benchmarks import load

_BODY = b"x" * 100_000
_ASKED: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _ASKED[f"{self.command} {self.path} {self.headers.get('Authorization')}"] += 1
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(_BODY) + (self.path == "/cut")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(_BODY)
        self.close_connection = self.path == "/cut"

    do_HEAD = do_GET  # noqa: N815  the standard library calls it so

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    _ASKED.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("method", "each"), [("GET", len(_BODY)), ("HEAD", 0)])
@pytest.mark.parametrize("clients", [1, 3, 20])
def test_each_path_is_asked_for_once_whatever_the_number_of_clients(
    port: int, method: str, each: int, clients: int
) -> None:
    paths = [f"/{number}" for number in range(7)]
    found = load.run(port, method, paths, clients, {"Authorization": "Bearer x"})
    assert found.body_bytes == 7 * each
    assert Counter(f"{method} {path} Bearer x" for path in paths) == _ASKED


def test_a_refusal_is_no_result(port: int) -> None:
    with pytest.raises(RuntimeError, match=r"refused: HTTP/1\.1 404"):
        load.run(port, "GET", ["/a", "/missing"], 1)


def test_a_cut_body_is_no_result(port: int) -> None:
    with pytest.raises(RuntimeError, match="before its response was complete"):
        load.run(port, "GET", ["/cut"], 1)


def test_held_downloads_have_begun(port: int) -> None:
    with load.held(port, "/held", 5):
        assert _ASKED["GET /held None"] == 5
