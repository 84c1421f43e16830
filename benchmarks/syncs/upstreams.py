"""The registry that all sync from, Debian's docker-registry, and the networks over which they reach it."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.syncs.contender import Source
from registry_sync.domain.references import TagName
from registry_sync.domain.serving import DistributionSpec
from support import filling
from support.certificates import CertificateAuthority
from support.delaying_proxy import DelayingProxy
from support.images import ContentBuilder, RepositoryContent
from support.nginx import Nginx
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.syncing import Installation

LOOPBACK, REDIRECTS, DIGESTS = "loopback", "redirects", "digests"


@dataclass(frozen=True)
class Link:
    """A link between the registry and those who sync, in both directions."""

    round_trip_seconds: float
    bits_per_second: float | None = None


#: Links by their names.
LINKS = {"20ms": Link(0.020), "80ms": Link(0.080), "100mbit": Link(0.0, 100e6)}
#: Every network by its name, in words.
NETWORKS = {
    LOOPBACK: "loopback",
    "20ms": "20 ms of round trip",
    "80ms": "80 ms of round trip",
    "100mbit": "100 Mbit/s",
    REDIRECTS: "TLS, and blobs from a second host",
    DIGESTS: "tokens, and tags listed with their digests",
}

_REQUEST = re.compile(r'"([A-Z]+) \S+ HTTP/[0-9.]+" \d+')
_SILENCE_SECONDS = 0.1
_STORAGE_HOST = """
server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    access_log {log};
    sendfile on;
    keepalive_requests 100000;
    root {root};
}}
"""


@dataclass
class Upstream:
    """The registry as it is reached over one network.

    ``requests`` counts all so far, by method and kind; ``refresh`` has it serve what was placed in a repository.
    """

    url: str
    requests: Callable[[], Counter[str]]
    ca_path: Path | None = None
    refresh: Callable[[str], None] = field(default=lambda _repository: None)
    _before: Counter[str] = field(default_factory=Counter, init=False)

    def source(self, repository: str) -> Source:
        return Source(self.url, repository, self.ca_path)

    def forget(self) -> None:
        """Counts requests from now on."""
        self._before = self.requests()

    def counts(self) -> dict[str, int]:
        """The requests since then by method and kind; blobs that another host has as ``GET elsewhere``."""
        return dict(self.requests() - self._before)


def _logged(server: RegistryServer) -> Counter[str]:
    return Counter({f"{method} {kind}": count for (method, kind), count in server.log().counts.items()})


class Registry:
    """The registry between ``with`` and its end; ``folder`` gets all of its files.

    What it holds is placed once, and reached over each network.
    """

    def __init__(self, folder: Path) -> None:
        self.server = RegistryServer(folder / "registry")
        self._folder = folder
        self._authority = CertificateAuthority(folder / "ca")
        self._numbers = itertools.count()

    @property
    def ca_path(self) -> Path:
        """What verifies the certificates of the registry with TLS and of its second host."""
        return self._authority.certificate_path

    def __enter__(self) -> Registry:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close_session()
        self.server.stop()

    def place(self, repository: str, content: RepositoryContent) -> None:
        """Puts content there, or moves the tags of what is there."""
        filling.place(self.server, repository, content)

    @contextmanager
    def reached(self, network: str) -> Iterator[Upstream]:
        """As it is reached over one of :data:`NETWORKS`."""
        self.server.reset_counts()
        if network == LOOPBACK:
            yield Upstream(self.server.url, partial(_logged, self.server))
        elif network in LINKS:
            link = LINKS[network]
            with DelayingProxy(self.server.port, link.round_trip_seconds, link.bits_per_second) as proxy:
                yield Upstream(f"http://{proxy.netloc}", partial(_logged, self.server))
        else:
            with self._redirecting() if network == REDIRECTS else self._listing_digests() as upstream:
                yield upstream

    @contextmanager
    def _redirecting(self) -> Iterator[Upstream]:
        """A second registry on the same files, by whose own redirects blobs come from nginx."""
        folder = self._folder / f"redirecting-{next(self._numbers)}"
        certificate, log = self._authority.server(), folder / "blobs.log"

        def block(port: int) -> str:
            return _STORAGE_HOST.format(
                port=port, chain=certificate.chain_path, key=certificate.key_path, log=log, root=self.server.storage
            )

        with ExitStack() as closing:
            storage = closing.enter_context(Nginx(folder / "nginx", block))
            base = f"https://127.0.0.1:{storage.port}"
            redirect = [{"name": "redirect", "options": {"baseurl": base}}]
            server = RegistryServer(
                folder / "registry", certificate=certificate, config={"middleware": {"storage": redirect}}
            )
            server.storage = self.server.storage
            closing.enter_context(server)
            closing.callback(server.close_session)

            def requests() -> Counter[str]:
                elsewhere = _REQUEST.findall(log.read_text()) if log.exists() else []
                return _logged(server) + Counter(f"{method} elsewhere" for method in elsewhere)

            yield Upstream(server.url, requests, self.ca_path)

    @contextmanager
    def _listing_digests(self) -> Iterator[Upstream]:
        """Our own pull server, which asks for tokens, with what it has synced from the registry."""
        folder = self._folder / f"listing-{next(self._numbers)}"
        folder.mkdir()
        here, log = Installation.embedded(folder), folder / "access.log"

        def refresh(repository: str) -> None:
            here.sync(repository, self.server.url, repository)
            if here.database.distributions.by_base_path(repository) is None:
                found = here.database.repositories.by_name(repository)
                spec = DistributionSpec(repository, repository, found.id, is_private=False)
                here.database.distributions.create(spec)

        def requests() -> Counter[str]:
            lines = _settled(log).splitlines()
            kinds = (f"{line['method']} {line['kind']}" for line in map(json.loads, lines))
            return Counter(kind if kind.endswith("tags") else kind.removesuffix("s") for kind in kinds)

        with PullServer(folder, access_log=str(log)) as server:
            yield Upstream(server.url, requests, refresh=refresh)
        here.database.close()


def _settled(log: Path) -> str:
    """What is in a log that is written a moment after the responses."""
    size = -1
    while log.exists() and size != log.stat().st_size:
        size = log.stat().st_size
        time.sleep(_SILENCE_SECONDS)
    return log.read_text() if log.exists() else ""


def with_moved_tag(content: RepositoryContent) -> RepositoryContent:
    """What a registry holds after one tag, the first by name, was pushed anew: an image with one layer of its own.

    The layer is as large as the median of all blobs.
    """
    sizes = sorted(blob.size_bytes for blob in content.blobs.values())
    build = ContentBuilder(seed=20)
    build.tag(moved_tag(content), build.image([build.blob(sizes[len(sizes) // 2])]))
    return content.merged(build.content())


def moved_tag(content: RepositoryContent) -> TagName:
    """The tag that :func:`with_moved_tag` moves."""
    return TagName(min(content.tags))
