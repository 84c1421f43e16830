"""One blob while it is downloaded: what its readers get at which time, and what waits for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.domain.digests import Digest
from registry_sync.errors import DigestMismatch
from registry_sync.serve.blob_bodies import BodyCut
from registry_sync.serve.downloads import HELD_BYTES, BlobDownload, DownloadAbandoned, DownloadWriter

DATA = bytes(range(256)) * 2048  # 512 KiB
DIGEST = Digest.of(DATA)
PIECE = 64 * 1024


def _run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


async def _gather(download: BlobDownload, offset: int = 0, length: int = len(DATA)) -> bytes:
    return b"".join([chunk async for chunk in download.reader(offset, length).chunks(lambda: 65536)])


async def _append(download: BlobDownload, data: bytes, **more: Any) -> None:
    for start in range(0, len(data), PIECE):
        await asyncio.to_thread(download.append, data[start : start + PIECE], is_in_file=False, **more)


def test_the_last_bytes_wait_for_the_digest() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        got = bytearray()

        async def read() -> None:
            async for chunk in download.reader(0, len(DATA)).chunks(lambda: 65536):
                got.extend(chunk)

        reading = asyncio.create_task(read())
        await _append(download, DATA)
        while len(got) < len(DATA) - HELD_BYTES:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert bytes(got) == DATA[:-HELD_BYTES]
        download.verify()
        await reading
        assert bytes(got) == DATA

    _run(test())


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (5, 200_000), (300_000, 100_000), (len(DATA) - 1, 1), (0, 0)])
def test_a_part_is_read_however_small_the_window_is(offset: int, length: int) -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA), window_bytes=PIECE * 2)
        reading = asyncio.create_task(_gather(download, offset, length))
        await asyncio.sleep(0)
        await _append(download, DATA)
        download.verify()
        download.end()
        assert await reading == DATA[offset : offset + length]

    _run(test())


def test_a_window_waits_for_its_slowest_reader_and_then_no_longer() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA), window_bytes=PIECE * 2, stall_seconds=0.3)
        slow = download.reader(0, len(DATA))
        fast = asyncio.create_task(_gather(download))
        await asyncio.sleep(0)
        await _append(download, DATA)
        download.verify()
        assert await fast == DATA
        with pytest.raises(BodyCut, match="waited too long"):
            [chunk async for chunk in slow.chunks(lambda: 65536)]

    _run(test())


def test_bytes_that_nobody_wants_and_nothing_keeps_end_the_download() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA), window_bytes=PIECE * 2)
        download.reader(0, len(DATA)).close()
        with pytest.raises(DownloadAbandoned):
            await _append(download, DATA)

    _run(test())


def test_a_download_that_nothing_keeps_ends_with_its_last_reader_however_much_room_there_is() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        writer = DownloadWriter(download, None, lambda _problem: None)
        await asyncio.to_thread(writer.write, DATA[:PIECE])  # nobody came yet
        first, second = download.reader(0, len(DATA)), download.reader(0, len(DATA))
        first.close()
        await asyncio.to_thread(writer.write, DATA[PIECE : PIECE * 2])
        second.close()
        with pytest.raises(DownloadAbandoned):
            await asyncio.to_thread(writer.write, DATA[PIECE * 2 : PIECE * 3])

    _run(test())


def test_a_download_that_is_kept_goes_on_without_readers(tmp_path: Path) -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        with LocalBlobStore(tmp_path).writer(DIGEST, len(DATA)) as kept:
            writer = DownloadWriter(download, kept, lambda _problem: None)
            download.reader(0, len(DATA)).close()
            await asyncio.to_thread(writer.write, DATA)
            await asyncio.to_thread(writer.commit)
        assert writer.is_kept

    _run(test())


def test_who_comes_after_the_window_moved_on_cannot_join() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA), window_bytes=PIECE * 2)
        assert download.can_join()
        reading = asyncio.create_task(_gather(download))
        await asyncio.sleep(0)
        await _append(download, DATA)
        assert not download.can_join()
        download.verify()
        assert await reading == DATA

    _run(test())


@pytest.mark.parametrize("is_same", [True, False])
def test_a_new_beginning_is_compared_with_what_was_given(is_same: bool) -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        first = DATA[: PIECE * 4] if is_same else b"x" * PIECE * 4
        given, late = (
            download.reader(0, len(DATA)).chunks(lambda: 65536),
            download.reader(0, len(DATA)).chunks(lambda: 65536),
        )
        await _append(download, first)
        assert await anext(given) == first[:PIECE]
        download.restart()
        await _append(download, DATA)
        download.verify()
        assert b"".join([chunk async for chunk in late]) == DATA
        if is_same:
            assert b"".join([chunk async for chunk in given]) == DATA[PIECE:]
        else:
            with pytest.raises(BodyCut, match="other bytes"):
                [chunk async for chunk in given]

    _run(test())


def test_a_whole_body_that_is_wrong_ends_those_who_have_some_of_it_at_once() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        given = download.reader(0, len(DATA)).chunks(lambda: 65536)
        await _append(download, DATA[:-1] + b"x")
        assert await anext(given) == DATA[:PIECE]
        with pytest.raises(DigestMismatch):
            download.verify()
        download.restart()
        with pytest.raises(BodyCut):
            await anext(given)

    _run(test())


def test_readers_of_a_file_hold_up_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "blob"
        path.write_bytes(DATA)
        download = BlobDownload(DIGEST, len(DATA), window_bytes=1)
        slow = download.reader(0, len(DATA))
        download.use_file(path)
        await asyncio.to_thread(download.append_from_file, len(DATA))
        download.verify()
        download.end()
        path.unlink()
        assert b"".join([chunk async for chunk in slow.chunks(lambda: 65536)]) == DATA

    _run(test())


def test_a_failure_reaches_whoever_reads() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        reading = asyncio.create_task(_gather(download))
        await asyncio.sleep(0)
        threading.Thread(target=download.end, args=(OSError("the cable was cut"),)).start()
        with pytest.raises(BodyCut, match="the cable was cut"):
            await reading
        assert await download.started(5)

    _run(test())


def test_nothing_comes_in_time() -> None:
    async def test() -> None:
        assert not await BlobDownload(DIGEST, len(DATA)).started(0.01)

    _run(test())


def test_a_stopped_server_ends_the_thread_at_the_next_byte() -> None:
    async def test() -> None:
        download = BlobDownload(DIGEST, len(DATA))
        download.abandon()
        writer = DownloadWriter(download, None, lambda _problem: None)
        with pytest.raises(DownloadAbandoned):
            writer.write(b"x")

    _run(test())
