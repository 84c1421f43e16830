"""Many blobs of a store asked for, or removed, at once: what collecting and reclaiming room need of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from registry_sync.domain.digests import Digest
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.parallel import for_each

_THREADS = 16


class DeletingStore(Protocol):
    """Blobs by digest that can be removed."""

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool: ...
    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool: ...


class StoredBytes:
    """The blobs of ``store``. An error of it is raised after what had begun was finished."""

    def __init__(self, store: DeletingStore) -> None:
        self._store = store

    def present(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those of ``digests`` that are there."""
        return _those(self._store.has, digests)

    def delete(self, digests: Sequence[Digest], *, stored_before: datetime | None = None) -> set[Digest]:
        """Removes them; those that were there, and were not written again since ``stored_before``."""
        return _those(lambda digest: self._store.delete(digest, stored_before=stored_before), digests)


def _those(ask: Callable[[Digest], bool], digests: Sequence[Digest]) -> set[Digest]:
    found: set[Digest] = set()

    def done(digest: Digest, answer: bool) -> None:
        if answer:
            found.add(digest)

    def failed(_digest: Digest, error: RegistrySyncError) -> None:
        raise error

    for_each(ask, digests, threads=min(_THREADS, len(digests)), done=done, failed=failed)
    return found
