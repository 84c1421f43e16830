"""Many blobs of a store asked for, or removed, at once: what collecting and reclaiming room need of it.

What cannot be removed, such as an object under a lock, keeps none of the others; it is noted, and told in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from registry_sync.domain.digests import Digest
from registry_sync.domain.space import removal_error
from registry_sync.errors import BlobStoreError, RegistrySyncError
from registry_sync.sync.parallel import for_each

_THREADS = 16
#: Failures that may pass before the store itself is taken to be away.
MOST_PASSING = 20


class DeletingStore(Protocol):
    """Blobs by digest that can be removed."""

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool: ...
    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool: ...


class StoredBytes:
    """The blobs of ``store``; ``failures`` are what could not be removed, by digest or other name, and why.

    When as many as :data:`MOST_PASSING` meet what may pass, the last of these errors is raised after what had begun was
    finished.
    """

    def __init__(self, store: DeletingStore) -> None:
        self._store = store
        self.failures: dict[str, BlobStoreError] = {}

    def present(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those of ``digests`` that are there; one that cannot be asked for is not."""

        def failed(_digest: Digest, error: RegistrySyncError) -> None:
            if error.is_temporary or not isinstance(error, BlobStoreError):
                raise error

        return _those(self._store.has, digests, failed)

    def delete(self, digests: Sequence[Digest], *, stored_before: datetime | None = None) -> set[Digest]:
        """Removes them; those that were there, and were not written again since ``stored_before``."""
        return _those(lambda digest: self._store.delete(digest, stored_before=stored_before), digests, self.note)

    def note(self, name: str, error: RegistrySyncError) -> None:
        """Notes a failure. Raises it when the store is away, or when it is none of the store's."""
        if not isinstance(error, BlobStoreError):
            raise error
        self.failures[name] = error
        if error.is_temporary and sum(known.is_temporary for known in self.failures.values()) >= MOST_PASSING:
            raise error

    def raise_failures(self) -> None:
        """Raises one :class:`BlobStoreError` for everything that could not be removed, if anything could not."""
        if self.failures:
            raise removal_error(self.failures)


def _those(
    ask: Callable[[Digest], bool], digests: Sequence[Digest], failed: Callable[[Digest, RegistrySyncError], None]
) -> set[Digest]:
    found: set[Digest] = set()

    def done(digest: Digest, answer: bool) -> None:
        if answer:
            found.add(digest)

    for_each(ask, digests, threads=min(_THREADS, len(digests)), done=done, failed=failed)
    return found
