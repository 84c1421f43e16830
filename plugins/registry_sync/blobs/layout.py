"""Where what lies below the root of a store, and how it is listed. The layout is the same in every store.

A blob has three parts in its name: algorithm, first two characters, encoded. What begins with a dot is the store's
own and no blob, since no algorithm of a digest begins so. Everything else was put there by a stranger.

One walk for all stores: a store says what is in one folder, and here is decided what of it is a blob.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from registry_sync.blobs.store import StoredBlob, Unlisted
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, InvalidReference

#: What was written of blobs that are not published.
PARTIALS = ".partials"
#: Blobs whose bytes were found to be others than their digest says.
QUARANTINE = ".quarantine"
_FIRST_TWO = re.compile(r"[0-9a-f]{2}")


def blob_name(digest: Digest) -> str:
    """The name of a blob, relative to the root: ``sha256/ab/abcd…``."""
    encoded = digest.encoded
    return f"{digest.algorithm}/{encoded[:2]}/{encoded}"


def flat_name(digest: Digest) -> str:
    """The name of what belongs to a blob in a folder of the store's own: ``sha256-abcd…``."""
    return f"{digest.algorithm}-{digest.encoded}"


def digest_of(name: str) -> Digest | None:
    """The digest that a name of :func:`blob_name` or :func:`flat_name` stands for; None for any other name."""
    algorithm, _, rest = name.partition("/" if "/" in name else "-")
    try:
        digest = Digest(f"{algorithm}:{rest.rpartition('/')[2]}")
    except InvalidReference:
        return None
    return digest if digest.is_verifiable and name in (blob_name(digest), flat_name(digest)) else None


def may_hold_blobs(folder: str) -> bool:
    """Whether blobs can lie somewhere below ``folder``, which is relative to the root."""
    algorithm, _, first_two = folder.partition("/")
    return algorithm in ("sha256", "sha512") and (not first_two or _FIRST_TWO.fullmatch(first_two) is not None)


class FolderEntry(NamedTuple):
    """One name in a folder. ``name`` is relative to the root of the store; what is neither folder nor file is odd."""

    name: str
    is_folder: bool
    is_file: bool
    size_bytes: int
    stored_at: datetime


#: What is in one folder, "" for the root; nothing for a folder that is not there.
Children = Callable[[str], Iterable[FolderEntry]]


def published(children: Children, unlisted: Unlisted | None = None) -> Iterator[StoredBlob]:
    """Every blob under its digest."""
    return (found for found in _walk(children, "", unlisted) if isinstance(found, StoredBlob))


def unknown_files(children: Children) -> Iterator[str]:
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


def _listed(children: Children, folder: str, unlisted: Unlisted | None) -> Iterator[FolderEntry]:
    entries: Iterator[FolderEntry] | None = None
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
