"""What a process does that writes blobs and may be killed meanwhile; it says on its output how far it is.

:func:`half` writes the first ``count`` bytes of a blob and waits for a line before it continues and commits.
:func:`many` commits ``count`` blobs.
"""

from __future__ import annotations

import resource
import sys

from registry_sync.blobs.store import BlobStore
from registry_sync.errors import RegistrySyncError
from support.images import Blob

PIECE = 256 * 1024


def say(word: str) -> None:
    print(word, flush=True)


def half(store: BlobStore, seed: int, size: int, count: int) -> None:
    blob = Blob.random(seed, size)
    data = memoryview(blob.data)
    with store.writer(blob.digest, blob.size_bytes) as writer:
        say(f"offset {writer.offset}")
        while writer.offset < count:
            writer.write(data[writer.offset : min(writer.offset + PIECE, count)])
        say(f"wrote {writer.offset}")
        sys.stdin.readline()
        if writer.offset < size:
            writer.write(data[writer.offset :])
        writer.commit()
    say("published")


def many(store: BlobStore, seed: int, size: int, count: int) -> None:
    for number in range(count):
        blob = Blob.random(seed + number, size)
        with store.writer(blob.digest, blob.size_bytes) as writer:
            data = blob.data
            for start in range(writer.offset, size, PIECE):
                writer.write(data[start : start + PIECE])
            writer.commit()
        say(f"published {blob.digest}")


def limited(store: BlobStore, seed: int, size: int, count: int) -> None:
    """As ``many``, in a process that may write no file longer than half a blob; says which error met it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        many(store, seed, size, count)
    except RegistrySyncError as error:
        say(f"{type(error).__name__} {error}")


COMMANDS = {"half": half, "many": many, "limited": limited}
