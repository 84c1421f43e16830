"""Unchanged listings of many tags, with the registry's list of digests and with a HEAD for each tag, in turn.

The registry is our own pull server, which lists digests, on loopback. Seconds are those of the listing alone, without
Airflow; requests are counted by the client.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.serving import DistributionSpec
from registry_sync.oci.client import RegistryClient, RegistryReader
from support.memory_client import MemoryClient
from support.memory_registry import MemoryRegistry
from support.pull_server import PullServer
from support.shapes import many_tags
from support.syncing import Installation, OpenClient, new_client

TAG_COUNT = 3000
_NAME = "team/many"


@dataclass
class ListingResult:
    """Seconds of each unchanged sync, and the requests of the last one, by what it uses."""

    tag_count: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as fast the list is, by medians; more is better."""
        return statistics.median(self.seconds["off"]) / statistics.median(self.seconds["auto"])

    def as_json(self) -> dict[str, object]:
        """The measurements as a document."""
        return {**vars(self), "ratio": self.ratio}

    def __str__(self) -> str:
        parts = [
            f"{name} {statistics.median(seconds):.2f} s, {self.requests[name]:,} requests"
            for name, seconds in self.seconds.items()
        ]
        return f"unchanged, {self.tag_count:,} tags: {'; '.join(parts)}; {self.ratio:.1f} times as fast"


def measure(runs: int, say: Callable[[str], None], tag_count: int = TAG_COUNT) -> ListingResult:
    """Syncs once, and then ``runs`` times with each of both ways, in turn."""
    result = ListingResult(tag_count)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("upstream", "mirror"):
            (folder / part).mkdir()
        upstream = Installation.embedded(folder / "upstream")
        origin = MemoryRegistry()
        origin.serve(_NAME, many_tags(tags=tag_count, images=300))
        upstream.sync("many", origin.url, _NAME)
        repository = upstream.database.repositories.by_name("many")
        upstream.database.distributions.create(DistributionSpec(_NAME, _NAME, repository.id, is_private=False))
        upstream.database.close()
        mirror = Installation.embedded(folder / "mirror")
        with PullServer(folder / "upstream") as server:
            say("A first sync")
            mirror.sync("copy", server.url, _NAME)
            for number in range(runs):
                say(f"Unchanged syncs, {number + 1} of {runs}")
                for way in ("auto", "off"):
                    opened: list[RegistryReader] = []
                    started = time.perf_counter()
                    made = mirror.sync("copy", server.url, _NAME, digest_list=way, client=_noted(opened))
                    result.seconds.setdefault(way, []).append(time.perf_counter() - started)
                    if made is not None:
                        raise RuntimeError("the upstream has changed")
                    usage = opened[0].usage.counts()
                    result.requests[way] = usage.head_count + usage.tag_page_count + usage.digest_page_count
        mirror.database.close()
    return result


def _noted(opened: list[RegistryReader]) -> OpenClient:
    """Opens clients, and notes them."""

    def open_client(remote: RemoteSpec) -> RegistryClient | MemoryClient:
        client = new_client(remote)
        opened.append(client)
        return client

    return open_client
