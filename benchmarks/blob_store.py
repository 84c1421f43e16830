"""The local blob store beside writing and hashing the same bytes without it: one large blob, and 2000 small ones.

The store also flushes to the disk, checks and publishes; the ratio is what that costs.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.domain.digests import Digest
from support.images import Blob

CHUNK_BYTES = 1024 * 1024
LARGE_BYTES = 512 * CHUNK_BYTES
SMALL_BYTES, SMALL_COUNT = 7000, 2000
THREADS = 20


@dataclass(frozen=True)
class StoreResult:
    """Medians in seconds of the store and of plain writing, and what they wrote in bytes."""

    label: str
    written_bytes: int
    store_seconds: float
    plain_seconds: float

    @property
    def ratio(self) -> float:
        """The store's time divided by that of plain writing."""
        return self.store_seconds / self.plain_seconds

    def __str__(self) -> str:
        speeds = [self.written_bytes / seconds / 1e6 for seconds in (self.store_seconds, self.plain_seconds)]
        times = f"{self.store_seconds:.2f} s ({speeds[0]:.0f} MB/s), plain {self.plain_seconds:.2f} s"
        return f"{self.label:<32} store {times} ({speeds[1]:.0f} MB/s), ratio {self.ratio:.2f}"


def measure(runs: int) -> list[StoreResult]:
    """One large blob in one thread, and many small ones from one thread and from twenty."""
    results = []
    with TemporaryDirectory() as folder:
        root = Path(folder)
        large = Blob.random(1, LARGE_BYTES)
        pieces = list(large.pieces())
        results.append(
            _compare(
                f"one blob of {LARGE_BYTES // CHUNK_BYTES} MiB",
                LARGE_BYTES,
                runs,
                lambda number: _store_large(root / f"large-{number}", large.digest, pieces),
                lambda number: _write_large(root / f"plain-large-{number}", pieces),
            )
        )
        blobs = [Blob.random(number + 2, SMALL_BYTES) for number in range(SMALL_COUNT)]
        results += [_small(root / f"{threads}", blobs, threads, runs) for threads in (1, THREADS)]
    return results


def _small(root: Path, blobs: list[Blob], threads: int, runs: int) -> StoreResult:
    def store(number: int) -> None:
        target = LocalBlobStore(root / f"store-{number}")
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda blob: _put(target, blob), blobs))

    def plain(number: int) -> None:
        folder = root / f"plain-{number}"
        folder.mkdir(parents=True)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda blob: _write_small(folder, blob), blobs))

    label = f"{len(blobs)} blobs of {SMALL_BYTES} bytes, {threads} threads"
    return _compare(label, SMALL_BYTES * len(blobs), runs, store, plain)


def _compare(
    label: str, written_bytes: int, runs: int, store: Callable[[int], None], plain: Callable[[int], None]
) -> StoreResult:
    seconds: dict[str, list[float]] = {"store": [], "plain": []}
    for number in range(runs):
        for name, work in (("plain", plain), ("store", store)):
            began = time.perf_counter()
            work(number)
            seconds[name].append(time.perf_counter() - began)
    return StoreResult(label, written_bytes, statistics.median(seconds["store"]), statistics.median(seconds["plain"]))


def _put(store: LocalBlobStore, blob: Blob) -> None:
    with store.writer(blob.digest, blob.size_bytes) as writer:
        writer.write(blob.data)
        writer.commit()


def _write_small(folder: Path, blob: Blob) -> None:
    data = blob.data
    (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)


def _store_large(root: Path, digest: Digest, pieces: list[bytes]) -> None:
    store = LocalBlobStore(root)
    with store.writer(digest, sum(map(len, pieces))) as writer:
        for piece in pieces:
            writer.write(piece)
        writer.commit()
    store.delete(digest)


def _write_large(path: Path, pieces: list[bytes]) -> None:
    hasher = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            hasher.update(piece)
            file.write(piece)
    path.unlink()


if __name__ == "__main__":
    for result in measure(3):
        print(result)
