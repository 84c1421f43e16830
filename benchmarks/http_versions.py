"""HTTP/1.1 over many connections beside HTTP/2 over one: the same manifests and blobs of one registry, in turn.

The registry is Debian's docker-registry with TLS, which speaks both. Whoever fetches is a process of its own, hashes
what comes and keeps nothing. h2 is no dependency of the project:

    pip install --target .local/h2 h2
    PYTHONPATH=plugins:tests:tools:.local/h2 python -m benchmarks.http_versions
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import requests

from benchmarks.results import Usage
from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from registry_sync.sync.parallel import for_each
from support import filling, shapes
from support.certificates import CertificateAuthority
from support.delaying_proxy import DelayingProxy
from support.registry import RegistryServer

_HEADERS = {"Accept": ", ".join(media_types.ACCEPTED_MANIFEST_TYPES), "Accept-Encoding": "identity"}
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Work:
    """What is requested of ``repository``: a HEAD of each tag, a GET of each manifest and of each blob, by digest."""

    url: str
    repository: str
    ca_path: str
    tags: list[str]
    manifests: list[str]
    blobs: list[tuple[str, int]]

    @property
    def requests(self) -> Iterator[tuple[str, str, str | None]]:
        """Method, URL and digest of each, None where there is no body."""
        base = f"{self.url}/v2/{self.repository}"
        yield from (("HEAD", f"{base}/manifests/{tag}", None) for tag in self.tags)
        yield from (("GET", f"{base}/manifests/{digest}", digest) for digest in self.manifests)
        yield from (("GET", f"{base}/blobs/{digest}", digest) for digest, _ in self.blobs)


def _check(digest: str | None, found: str) -> None:
    if digest is not None and digest != f"sha256:{found}":
        raise RuntimeError(f"{digest} came with other bytes")


# -- who fetches --------------------------------------------------------------------------------------------------


class _Hashed:
    """A destination of a blob that keeps its hash alone."""

    def __init__(self) -> None:
        self.restart()

    def write(self, chunk: bytes | memoryview) -> None:
        self._hasher.update(chunk)
        self.offset += len(chunk)

    def restart(self) -> None:
        self.offset, self._hasher = 0, hashlib.sha256()

    def commit(self) -> None:
        """Nothing is kept."""

    def discard(self) -> None:
        """Nothing is kept."""


def our_client(work: Work, _at_once: int) -> None:
    """Our client, with as many requests at once as its controller allows."""
    repository = RepositoryName(work.repository)
    with RegistryClient(RegistryUrl.parse(work.url), None, ClientOptions(verify=work.ca_path)) as client:

        def fetch(item: Callable[[], Any]) -> None:
            item()

        def failed(_item: Any, error: Exception) -> None:
            raise error

        items: list[Callable[[], Any]] = [
            *(lambda tag=tag: client.head_manifest(repository, TagName(tag)) for tag in work.tags),
            *(lambda one=one: client.get_manifest(repository, Digest(one)) for one in work.manifests),
            *(
                lambda one=one, size=size: client.fetch_blob(
                    repository, Descriptor("application/octet-stream", Digest(one), size), _Hashed()
                )
                for one, size in work.blobs
            ),
        ]
        for_each(fetch, items, threads=lambda: client.requests_at_once, done=lambda *_: None, failed=failed)


def requests_threads(work: Work, at_once: int) -> None:
    """``requests`` in threads with a connection each."""
    local = threading.local()

    def fetch(one: tuple[str, str, str | None]) -> None:
        method, url, digest = one
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env, local.session.verify = False, work.ca_path
        hasher = hashlib.sha256()
        with local.session.request(method, url, headers=_HEADERS, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            response.raise_for_status()
            while chunk := response.raw.read(_CHUNK_BYTES):
                hasher.update(chunk)
        _check(digest, hasher.hexdigest())

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(fetch, work.requests))


def httpx_1(work: Work, at_once: int) -> None:
    """``httpx`` with HTTP/1.1, in one thread."""
    asyncio.run(_by_httpx(work, at_once, has_http2=False))


def httpx_2(work: Work, at_once: int) -> None:
    """``httpx`` with HTTP/2, in one thread."""
    asyncio.run(_by_httpx(work, at_once, has_http2=True))


async def _by_httpx(work: Work, at_once: int, *, has_http2: bool) -> None:
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    context = ssl.create_default_context(cafile=work.ca_path)
    waiting = iter(list(work.requests))
    async with httpx.AsyncClient(
        http1=not has_http2,
        http2=has_http2,
        verify=context,
        limits=limits,
        trust_env=False,
        timeout=_TIMEOUT_SECONDS,
        headers=_HEADERS,
    ) as client:

        async def fetch_all() -> None:
            for method, url, digest in waiting:
                hasher = hashlib.sha256()
                async with client.stream(method, url) as response:
                    response.raise_for_status()
                    async for chunk in response.aiter_raw():
                        hasher.update(chunk)
                _check(digest, hasher.hexdigest())

        await asyncio.gather(*(fetch_all() for _ in range(at_once)))


CONTENDERS: dict[str, Callable[[Work, int], None]] = {
    "our client": our_client,
    "requests": requests_threads,
    "httpx, HTTP/1.1": httpx_1,
    "httpx, HTTP/2": httpx_2,
}
#: Who is measured with how many requests at once; our client begins with 20 and finds its own number.
ENTRANTS = (
    ("requests", 20),
    ("httpx, HTTP/2", 20),
    ("our client", 64),
    ("requests", 64),
    ("httpx, HTTP/1.1", 64),
    ("httpx, HTTP/2", 64),
)


def _fetch(document: dict[str, Any]) -> None:
    """One measurement, in a process of its own; prints what it took."""
    work = Work(**json.loads(Path(document["work"]).read_text()))
    began, cpu_began = time.perf_counter(), time.process_time()
    CONTENDERS[document["contender"]](work, document["at_once"])
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}))


# -- what they fetch, and in which order --------------------------------------------------------------------------


@contextmanager
def _works(folder: Path, names: list[str]) -> Iterator[dict[tuple[str, str], Path]]:
    """Files with the work, by network and name."""
    authority = CertificateAuthority(folder / "ca")
    with ExitStack() as closing:
        server = closing.enter_context(RegistryServer(folder / "registry", certificate=authority.server()))
        closing.callback(server.close_session)
        proxy = closing.enter_context(DelayingProxy(server.port, 0.080))
        urls = {"loopback": server.url, "80 ms": f"https://{proxy.netloc}"}
        found: dict[tuple[str, str], Path] = {}
        for name in names:
            content = shapes.SHAPES[name]()
            filling.place(server, name, content)
            reached = content.closure(content.tags)
            blobs = sorted(
                ((str(one), content.blobs[one].size_bytes) for one in reached.blobs), key=lambda one: -one[1]
            )
            tags, manifests = sorted(map(str, content.tags)), sorted(map(str, reached.manifests))
            for label, requested in ((f"{name}, HEADs", (tags, [], [])), (name, ([], manifests, blobs))):
                for network, url in urls.items():
                    work = Work(url, name, str(authority.certificate_path), *requested)
                    path = folder / f"{len(found)}.json"
                    path.write_text(json.dumps(asdict(work)))
                    found[network, label] = path
        yield found


def measure(runs: int, networks: list[str], names: list[str], say: Callable[[str], None]) -> str:
    """Medians of ``runs`` turns as a table: seconds, seconds of the processor, and the ratio to ``requests``."""
    lines = [
        "| network | what | at once | by | s | s of the processor | of requests |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder, _works(Path(folder), names) as works:
        for (network, label), path in works.items():
            if network not in networks:
                continue
            usages: dict[tuple[str, int], list[Usage]] = {entrant: [] for entrant in ENTRANTS}
            for _ in range(runs):
                for name, at_once in ENTRANTS:
                    usages[name, at_once].append(_measured(path, name, at_once))
                    say(f"{network}, {label}, {at_once}, {name}: {usages[name, at_once][-1]}")
            medians = {
                entrant: (
                    statistics.median(usage.seconds for usage in found),
                    statistics.median(usage.cpu_seconds or 0.0 for usage in found),
                )
                for entrant, found in usages.items()
            }
            for (name, at_once), (seconds, cpu_seconds) in medians.items():
                ratio = seconds / medians["requests", at_once][0]
                lines.append(
                    f"| {network} | {label} | {at_once} | {name} | {seconds:.2f} | {cpu_seconds:.2f} | {ratio:.2f} |"
                )
    return "\n".join(lines)


def _measured(work: Path, contender: str, at_once: int) -> Usage:
    task = json.dumps({"work": str(work), "contender": contender, "at_once": at_once})
    command = [sys.executable, "-m", "benchmarks.http_versions", "--fetch", task]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return Usage(**json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_versions", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; medians are shown")
    parser.add_argument("--networks", nargs="*", default=["loopback", "80 ms"])
    parser.add_argument("--shapes", nargs="*", default=["application", "wide"])
    parser.add_argument("--fetch", metavar="JSON", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fetch:
        _fetch(json.loads(arguments.fetch))
    else:
        print(
            measure(arguments.runs, arguments.networks, arguments.shapes, partial(print, file=sys.stderr, flush=True))
        )


if __name__ == "__main__":
    main()
