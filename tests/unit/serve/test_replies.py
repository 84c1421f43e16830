"""Bodies that are sent chunk by chunk, to clients that stay and to those that go."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from registry_sync.serve.replies import CHUNK_BYTES, BlobBody, BodyCut, Reply

_CHUNK_COUNT = 40
_SIZE_BYTES = _CHUNK_COUNT * CHUNK_BYTES


@dataclass
class Client:
    """Goes after ``chunk_count`` chunks; like a real server, its ``send`` says nothing of that."""

    chunk_count: int | None = None
    received: list[bytes] = field(default_factory=list)
    _has_gone: asyncio.Event = field(default_factory=asyncio.Event)
    _has_begun: bool = False

    async def receive(self) -> MutableMapping[str, Any]:
        if not self._has_begun:
            self._has_begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._has_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message.get("body"):
            self.received.append(message["body"])
        if len(self.received) == self.chunk_count:
            self._has_gone.set()
        await asyncio.sleep(0)


@dataclass
class Upstream:
    """Bytes that come from elsewhere."""

    made_count: int = 0
    is_closed: bool = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for _ in range(_CHUNK_COUNT):
            self.made_count += 1
            yield bytes(CHUNK_BYTES)

    def close(self) -> None:
        self.is_closed = True


def _sent(body: BlobBody, client: Client) -> int:
    return asyncio.run(Reply(200, body).send({"method": "GET"}, client.receive, client.send))


def test_a_client_that_stays_gets_every_byte() -> None:
    client, stored = Client(), io.BytesIO(bytes(_SIZE_BYTES))
    assert _sent(BlobBody(_SIZE_BYTES, 5, _SIZE_BYTES - 5, open=lambda: stored), client) == _SIZE_BYTES - 5
    assert sum(map(len, client.received)) == _SIZE_BYTES - 5
    assert stored.closed


def test_no_more_is_read_for_a_client_that_went() -> None:
    """Else an object store sends gigabytes that nobody takes."""
    client, stored = Client(chunk_count=3), io.BytesIO(bytes(_SIZE_BYTES))
    assert _sent(BlobBody(_SIZE_BYTES, 0, _SIZE_BYTES, open=lambda: stored), client) < 10 * CHUNK_BYTES
    assert len(client.received) < 10
    assert stored.closed


def test_what_comes_from_elsewhere_is_let_go_when_the_client_went() -> None:
    client, coming = Client(chunk_count=3), Upstream()
    assert _sent(BlobBody(_SIZE_BYTES, 0, _SIZE_BYTES, coming=coming), client) < 10 * CHUNK_BYTES
    assert coming.made_count < 10
    assert coming.is_closed


def test_a_body_that_is_short_is_an_error() -> None:
    with pytest.raises(BodyCut, match=f"{CHUNK_BYTES} of {_SIZE_BYTES} bytes are missing"):
        _sent(
            BlobBody(_SIZE_BYTES, 0, _SIZE_BYTES, open=lambda: io.BytesIO(bytes(_SIZE_BYTES - CHUNK_BYTES))), Client()
        )
