"""A repository that was synced without its blobs, from a scripted registry: what pulls fetch, and how often."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.serving import DistributionSpec
from support.hostile_registry import Answer, HostileRegistry, Raw, Request, reply
from support.images import Blob, ContentBuilder, RepositoryContent
from support.serving import serve
from support.syncing import Installation

NAME = "team/app"
SMALL_BYTES, LARGE_BYTES = 10_000, 3 * 1024 * 1024


class Upstream:
    """Serves one image with a ``large`` and a ``small`` layer, which ``here`` knows and does not have.

    It is distributed to everybody as ``app``. Ranges are served. ``here`` is embedded below a folder.
    """

    def __init__(self, here: Installation | Path, *, large_bytes: int = LARGE_BYTES, **request: Any) -> None:
        build = ContentBuilder(77)
        layers = [build.blob(large_bytes), build.blob(SMALL_BYTES)]
        build.tag("latest", build.image(layers))
        self.content: RepositoryContent = build.content()
        self.large, self.small = (self.content.blobs[digest] for digest in layers)
        self.registry = HostileRegistry()
        self.here = Installation.embedded(here) if isinstance(here, Path) else here
        self._request = {"policy": "on_demand", **request}

    def __enter__(self) -> Upstream:
        self.registry.__enter__()
        serve(self.registry, NAME, self.content)
        for blob in (self.large, self.small):
            self.answer(blob, self.whole(blob))
        self.here.sync("app", self.registry.base, NAME, **self._request)
        repository = self.here.database.repositories.by_name("app")
        self.here.database.distributions.create(DistributionSpec("app", "app", repository.id, is_private=False))
        return self

    def __exit__(self, *reason: object) -> None:
        self.registry.__exit__(None, None, None)
        self.here.database.close()

    def answer(self, blob: Blob, *answers: Answer) -> None:
        """Scripts what is sent for a blob from now on."""
        self.registry.on("GET", f"/v2/{NAME}/blobs/{blob.digest}", *answers)

    def asked(self, blob: Blob) -> Sequence[Request]:
        """The requests for a blob so far."""
        return self.registry.asked("GET", f"/v2/{NAME}/blobs/{blob.digest}")

    def is_stored(self, blob: Blob) -> bool:
        return self.here.store.has(blob.digest, blob.size_bytes)

    @staticmethod
    def whole(
        blob: Blob, *, after: threading.Event | None = None, first: int = 0, instead: bytes | None = None
    ) -> Answer:
        """The bytes, or the range that is asked for; ``after`` holds back what follows the ``first`` of them.

        With ``instead`` other bytes of that length are sent.
        """

        def answer(request: Request) -> Raw:
            asked = request.header("range")
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            where = f"bytes {start}-{blob.size_bytes - 1}/{blob.size_bytes}"
            data = (instead or blob.data)[start:]
            head = reply(206 if asked else 200, b"", [("Content-Range", where)] if asked else [], length=len(data))
            pieces: list[Any] = [*head.pieces, data[:first], data[first:]]
            return Raw(tuple(pieces if after is None else [*pieces[:-1], after, pieces[-1]]))

        return lambda request: Raw(answer(request).pieces, closes=False)


def damaged(blob: Blob, position: int = -1) -> bytes:
    """The bytes with another one at ``position``."""
    data = bytearray(blob.data)
    data[position] ^= 0xFF
    return bytes(data)


def path_of(digest: Digest) -> str:
    """Where a blob of the distribution is pulled."""
    return f"/v2/app/blobs/{digest}"
