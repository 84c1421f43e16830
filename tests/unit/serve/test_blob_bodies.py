"""Bodies that are sent chunk by chunk, to clients that stay and to those that go, and the memory that they share."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import AsyncGenerator, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from registry_sync.serve.blob_bodies import (
    CHUNKS_HELD,
    LEAST_CHUNK_BYTES,
    MOST_CHUNK_BYTES,
    MOST_FILE_CHUNK_BYTES,
    SHARED_BYTES,
    BlobBody,
    BodyCut,
    SendBuffers,
)
from registry_sync.serve.blob_bodies import FIRST_CHUNK_BYTES as CHUNK_BYTES
from registry_sync.serve.replies import Reply

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

    async def chunks(self, _next_size: Callable[[], int]) -> AsyncGenerator[bytes, None]:
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


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_file_is_sent_whole_or_in_part_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    """Where nothing says what can be read at once, threads read it."""
    if not is_cached:
        monkeypatch.setattr("registry_sync.serve.blob_bodies._CACHED_ONLY", None)
    data = os.urandom(3 * CHUNK_BYTES + 5)
    path = tmp_path / "blob"
    path.write_bytes(data)
    for offset, length in ((0, len(data)), (7, len(data) - 9), (len(data) - 1, 1)):
        client, file = Client(), io.FileIO(path)
        assert _sent(BlobBody(len(data), offset, length, file=file), client) == length
        assert b"".join(client.received) == data[offset : offset + length]
        assert file.closed


def test_chunks_of_a_file_stay_in_a_cache_and_below_what_the_c_library_maps(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(bytes(_SIZE_BYTES))
    client = Client()
    _sent(BlobBody(_SIZE_BYTES, file=io.FileIO(tmp_path / "blob")), client)
    sizes = {len(chunk) for chunk in client.received[1:-1]}
    assert sizes == {MOST_FILE_CHUNK_BYTES}
    assert MOST_FILE_CHUNK_BYTES + sys.getsizeof(b"") < 128 * 1024


def test_a_file_that_is_cut_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(_SIZE_BYTES - 1))
    file = io.FileIO(path)
    with pytest.raises(BodyCut, match=f"1 of {_SIZE_BYTES} bytes are missing"):
        _sent(BlobBody(_SIZE_BYTES, file=file), Client())
    assert file.closed


def test_a_small_body_is_one_message() -> None:
    client = Client()
    assert _sent(BlobBody(6, 1, 4, data=b"abcdef"), client) == 4
    assert client.received == [b"bcde"]


def test_chunks_grow_as_a_client_takes_them_up_to_a_bound() -> None:
    with SendBuffers().share() as next_size:
        sizes = [next_size() for _ in range(6)]
    assert sizes == [CHUNK_BYTES, 2 * CHUNK_BYTES, 4 * CHUNK_BYTES, *[MOST_CHUNK_BYTES] * 3]


@pytest.mark.parametrize("chunk_count", [CHUNKS_HELD, CHUNKS_HELD + 8])
@pytest.mark.parametrize("taken", [1, 20])
def test_what_many_clients_hold_is_bounded_whatever_each_took_before(chunk_count: int, taken: int) -> None:
    """However many chunks the first ones took, so that theirs are large: the later ones have smaller ones."""
    buffers, held, count = SendBuffers(), 0, 200
    with contextlib.ExitStack() as sent:
        for _ in range(count):
            next_size = sent.enter_context(buffers.share(chunk_count))
            size = [next_size() for _ in range(taken)][-1]
            assert size >= LEAST_CHUNK_BYTES
            held += size * chunk_count
        assert held <= SHARED_BYTES + count * LEAST_CHUNK_BYTES * chunk_count
    with buffers.share() as next_size:
        assert [next_size() for _ in range(4)][-1] == MOST_CHUNK_BYTES, "all was given back"
