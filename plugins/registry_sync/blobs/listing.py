"""What lies in a store, folder by folder, so that no listing is held as a whole.

One walk for all stores: a store says what is in one folder, and here is decided what of it is a blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from registry_sync.blobs.names import PARTIALS, QUARANTINE, digest_of, may_hold_blobs
from registry_sync.blobs.store import StoredBlob, Unlisted
from registry_sync.errors import BlobStoreError


class Entry(NamedTuple):
    """One name in a folder. ``name`` is relative to the root of the store; what is neither folder nor file is odd."""

    name: str
    is_folder: bool
    is_file: bool
    size_bytes: int
    stored_at: datetime


#: What is in one folder, "" for the root; nothing for a folder that is not there.
Children = Callable[[str], Iterable[Entry]]


def published(children: Children, unlisted: Unlisted | None = None) -> Iterator[StoredBlob]:
    """Every blob under its digest."""
    return (found for found in _walk(children, "", unlisted) if isinstance(found, StoredBlob))


def strangers(children: Children) -> Iterator[str]:
    """What is neither a blob nor the store's own. A folder that can hold no blob stands for all that is in it."""
    return (found for found in _walk(children, "", None) if isinstance(found, str))


def quarantined(children: Children) -> Iterator[StoredBlob]:
    """Every blob that was set aside."""
    for entry in children(QUARANTINE):
        digest = digest_of(entry.name.rpartition("/")[2])
        if digest is not None:
            yield StoredBlob(digest, entry.size_bytes, entry.stored_at)


def _walk(children: Children, folder: str, unlisted: Unlisted | None) -> Iterator[StoredBlob | str]:
    for entry in _listed(children, folder, unlisted):
        if entry.is_folder:
            if may_hold_blobs(entry.name):
                yield from _walk(children, entry.name, unlisted)
            elif entry.name not in (PARTIALS, QUARANTINE):
                yield entry.name
            continue
        digest = digest_of(entry.name) if entry.is_file and "/" in entry.name else None
        yield entry.name if digest is None else StoredBlob(digest, entry.size_bytes, entry.stored_at)


def _listed(children: Children, folder: str, unlisted: Unlisted | None) -> Iterator[Entry]:
    entries: Iterator[Entry] | None = None
    while True:
        try:
            entries = entries or iter(children(folder))
            entry = next(entries, None)
        except BlobStoreError as problem:
            if unlisted is None or problem.is_temporary:
                raise
            unlisted(folder, problem)
            return
        if entry is None:
            return
        yield entry
