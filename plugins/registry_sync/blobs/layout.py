"""The layout below the root of a store, the same in every store, and its listing.

The name of a blob has three components: algorithm, first two characters, encoded. A name that starts with a dot is the
store's own and no blob, since no digest algorithm starts so. Everything else is an unknown file.

One walk serves all stores: a store lists a single folder, and this module decides which entries are blobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from registry_sync.blobs.store import StoredBlob, Unlisted
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, InvalidReference

#: Resumable downloads: the incomplete bytes of blobs that are not published.
PARTIALS = ".partials"
#: Blobs whose bytes do not match their digest.
QUARANTINE = ".quarantine"
_FIRST_TWO = re.compile(r"[0-9a-f]{2}")


def blob_name(digest: Digest) -> str:
    """The name of a blob, relative to the root: ``sha256/ab/abcd…``."""
    encoded = digest.encoded
    return f"{digest.algorithm}/{encoded[:2]}/{encoded}"


def flat_name(digest: Digest) -> str:
    """The name that stands for a blob in one of the store's own folders: ``sha256-abcd…``."""
    return f"{digest.algorithm}-{digest.encoded}"


def digest_of(name: str) -> Digest | None:
    """The digest of a name made by :func:`blob_name` or :func:`flat_name`; None for any other name."""
    algorithm, _, rest = name.partition("/" if "/" in name else "-")
    try:
        digest = Digest(f"{algorithm}:{rest.rpartition('/')[2]}")
    except InvalidReference:
        return None
    return digest if digest.is_verifiable and name in (blob_name(digest), flat_name(digest)) else None


def may_hold_blobs(folder: str) -> bool:
    """Whether ``folder``, relative to the root, can contain blobs."""
    algorithm, _, first_two = folder.partition("/")
    return algorithm in ("sha256", "sha512") and (not first_two or _FIRST_TWO.fullmatch(first_two) is not None)


class FolderEntry(NamedTuple):
    """One entry of a folder; ``name`` is relative to the root. A device or dangling link is neither folder nor file."""

    name: str
    is_folder: bool
    is_file: bool
    size_bytes: int
    stored_at: datetime


#: Lists one folder, "" for the root; a missing folder has no entries.
Children = Callable[[str], Iterable[FolderEntry]]


def published(children: Children, unlisted: Unlisted | None = None) -> Iterator[StoredBlob]:
    """Every published blob."""
    return (found for found in _walk(children, "", unlisted) if isinstance(found, StoredBlob))


def unknown_files(children: Children) -> Iterator[str]:
    """The names that are neither blobs nor the store's own. A folder that cannot contain blobs is one name."""
    return (found for found in _walk(children, "", None) if isinstance(found, str))


def quarantined(children: Children) -> Iterator[StoredBlob]:
    """Every blob in quarantine."""
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
