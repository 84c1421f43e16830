"""Counters of the pull server, summed over its worker processes, as Prometheus text.

Each worker adds to a row of numbers of its own in one file that all have mapped, so that counting takes no lock between
processes and reading sums them up. A worker takes the first row that nobody holds: one that is started in place of
another goes on with its numbers, so that no counter ever falls while the server runs.
"""

from __future__ import annotations

import fcntl
import mmap
import socket
import threading
from bisect import bisect_left
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

from registry_sync.domain.serving import PullRecord
from registry_sync.errors import ConfigurationError

#: Workers whose numbers one file holds.
MOST_WORKERS = 128
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BYTES = 8
_MOST_PORT = 65_535
KINDS = ("manifests", "blobs", "tags", "referrers", "catalog", "token", "root", "other")
_METHODS = ("GET", "HEAD", "other")
_STATUSES = (200, 206, 304, 307, 400, 401, 403, 404, 405, 416, 429, 500, 502, 503, 507)
_OTHER_STATUS = "other"
_CODES = (
    *("BLOB_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "NOT_FOUND"),
    *("PAGINATION_NUMBER_INVALID", "RANGE_INVALID", "TOOMANYREQUESTS", "UNAUTHORIZED", "UNAVAILABLE", "UNSUPPORTED"),
    "other",
)
#: Upper bounds in seconds; a blob takes as long as its client reads.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: What the fetching of blobs on demand counts, and under which name.
ON_DEMAND = {
    "miss": ("registry_sync_on_demand_misses_total", "Pulls of blobs that were not stored."),
    "fetch": ("registry_sync_upstream_fetches_total", "Downloads that upstream registries were asked for."),
    "failure": ("registry_sync_upstream_failures_total", "Downloads from upstream registries that failed."),
    "bytes": ("registry_sync_upstream_bytes_total", "Bytes received from upstream registries."),
}
_PLAIN = (
    *(("registry_sync_pulls_total", "Manifests sent to clients.", f'by="{by}"') for by in ("tag", "digest")),
    ("registry_sync_sent_bytes_total", "Bytes of bodies of replies.", ""),
    ("registry_sync_blob_pulls_total", "Blobs sent to clients, whole or in part, stored or fetched on demand.", ""),
    *((name, text, "") for name, text in ON_DEMAND.values()),
)


def _layout() -> tuple[dict[tuple[str, str], int], dict[str, tuple[str, str]]]:
    """The place of each number by its name and labels, and type and help by name, in the order of the text."""
    families = {
        "registry_sync_requests_total": ("counter", "Requests by kind, method and status."),
        "registry_sync_errors_total": ("counter", "Refused requests by the code of the error."),
        **{name: ("counter", text) for name, text, _ in _PLAIN},
        "registry_sync_request_seconds": ("histogram", "Time from a request to the end of its reply."),
    }
    statuses = (*map(str, _STATUSES), _OTHER_STATUS)
    series = [
        ("registry_sync_requests_total", f'kind="{kind}",method="{method}",status="{status}"')
        for kind, method, status in product(KINDS, _METHODS, statuses)
    ]
    series += [("registry_sync_errors_total", f'code="{code}"') for code in _CODES]
    series += [(name, labels) for name, _, labels in _PLAIN]
    for kind in KINDS:
        bounds = (*map(repr, BUCKETS), "+Inf")
        series += [("registry_sync_request_seconds_bucket", f'kind="{kind}",le="{bound}"') for bound in bounds]
        series += [("registry_sync_request_seconds_sum", f'kind="{kind}"')]
    return {key: place for place, key in enumerate(series)}, families


_PLACES, _FAMILIES = _layout()
_ROW_BYTES = len(_PLACES) * _BYTES


class PullMetrics:
    """The numbers in the file at ``path``, which is made when it is missing. One object of a process counts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.truncate(MOST_WORKERS * _ROW_BYTES)
        self._mapped = mmap.mmap(self._file.fileno(), MOST_WORKERS * _ROW_BYTES)
        self._numbers = memoryview(self._mapped).cast("d")
        self._lock = threading.Lock()
        self._row = self._free_row() * len(_PLACES)

    def _free_row(self) -> int:
        for row in range(MOST_WORKERS):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
            except OSError:
                continue
            return row
        raise ConfigurationError(f"metrics are counted for at most {MOST_WORKERS} workers")

    def close(self) -> None:
        """Gives the row back; its numbers stay."""
        self._numbers.release()
        self._mapped.close()
        self._file.close()

    def count(self, record: PullRecord) -> None:
        """Counts one request."""
        kind = record.kind if record.kind in KINDS else "other"
        method = record.method if record.method in _METHODS else "other"
        status = record.status if record.status in _STATUSES else _OTHER_STATUS
        with self._lock:
            self._add("registry_sync_requests_total", f'kind="{kind}",method="{method}",status="{status}"', 1)
            if record.code is not None:
                code = record.code if record.code in _CODES else "other"
                self._add("registry_sync_errors_total", f'code="{code}"', 1)
            if record.is_pull:
                by = "digest" if record.tag is None else "tag"
                self._add("registry_sync_pulls_total", f'by="{by}"', 1)
            if kind == "blobs" and record.method == "GET" and record.status in (200, 206, 307):
                self._add("registry_sync_blob_pulls_total", "", 1)
            self._add("registry_sync_sent_bytes_total", "", record.sent_bytes)
            first = _PLACES["registry_sync_request_seconds_bucket", f'kind="{kind}",le="{BUCKETS[0]!r}"']
            self._numbers[self._row + first + bisect_left(BUCKETS, record.seconds)] += 1
            self._add("registry_sync_request_seconds_sum", f'kind="{kind}"', record.seconds)

    def count_on_demand(self, event: str, amount: int) -> None:
        """Counts what :data:`ON_DEMAND` names, from any thread."""
        with self._lock:
            self._add(ON_DEMAND[event][0], "", amount)

    def _add(self, name: str, labels: str, amount: float) -> None:
        self._numbers[self._row + _PLACES[name, labels]] += amount

    def text(self) -> str:
        """The sums of all workers in Prometheus' text format; requests that never happened are left out."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        count, numbers = len(_PLACES), self._numbers
        sums = [sum(numbers[place::count]) for place in range(count)]
        for family, (kind, text) in _FAMILIES.items():
            yield f"# HELP {family} {text}"
            yield f"# TYPE {family} {kind}"
            if kind == "histogram":
                yield from _histogram(family, sums)
                continue
            for (name, labels), place in _PLACES.items():
                if name == family and (sums[place] or family != "registry_sync_requests_total"):
                    yield f"{name}{{{labels}}} {_shown(sums[place])}" if labels else f"{name} {_shown(sums[place])}"


def _histogram(family: str, sums: list[float]) -> Iterator[str]:
    for kind in KINDS:
        so_far = 0.0
        for bound in (*map(repr, BUCKETS), "+Inf"):
            labels = f'kind="{kind}",le="{bound}"'
            so_far += sums[_PLACES[f"{family}_bucket", labels]]
            yield f"{family}_bucket{{{labels}}} {_shown(so_far)}"
        total = sums[_PLACES[f"{family}_sum", f'kind="{kind}"']]
        yield f'{family}_sum{{kind="{kind}"}} {_shown(total)}'
        yield f'{family}_count{{kind="{kind}"}} {_shown(so_far)}'


def _shown(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


class MetricsServer:
    """Serves ``/metrics`` at an address of its own, in a thread. Several workers may share the address."""

    def __init__(self, metrics: PullMetrics, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                is_found = self.path.partition("?")[0] == "/metrics"
                body = metrics.text().encode() if is_found else b""
                self.send_response(200 if is_found else 404)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_parts: object) -> None:
                """Nothing is logged of a scrape."""

        self._server = _SharedServer((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _SharedServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    allow_reuse_port = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # Python 3.10 has no setting for it
        super().server_bind()

    def handle_error(self, *_parts: object) -> None:
        """A scraper that goes away is nobody's problem."""


def metrics_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises :class:`ConfigurationError`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > _MOST_PORT:
        raise ConfigurationError(f"{text[:80]!r} is no address for metrics: give host:port, such as 127.0.0.1:9105")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_address(host: str, port: int) -> None:
    """Raises :class:`ConfigurationError` for an address that cannot be used, or that another program uses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as problem:
        raise ConfigurationError(f"metrics cannot be served at {host}:{port}: {problem.strerror}") from None
