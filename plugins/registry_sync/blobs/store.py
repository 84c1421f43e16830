"""The guarantees of every blob store, and the translation of the operating system's errors.

Stores differ in where they keep the bytes, and in nothing that a caller could notice.

A blob is published once all of its bytes are verified; until then nothing can be read under its digest. Bytes that were
written but not published are kept as a *resumable download*, which the next writer continues, also after a crash.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol

from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable

#: Called with the name of a folder that cannot be listed, and the error.
Unlisted = Callable[[str, BlobStoreError], None]


class StoredBlob(NamedTuple):
    """A blob in a listing.

    ``stored_at`` is when a writer last wrote its bytes or found them complete, by the store's clock.
    """

    digest: Digest
    size_bytes: int
    stored_at: datetime


class BlobWriter(Protocol):
    """Writes the bytes of one blob in order. For one thread; without :meth:`commit` the download stays resumable.

    All methods raise :class:`BlobStoreFull` (after removing the written bytes, to free the disk),
    :class:`BlobStoreUnavailable` or :class:`BlobStoreError`.
    """

    @property
    def offset(self) -> int:
        """The number of bytes written so far. Equal to the size when only :meth:`commit` is missing."""

    @property
    def is_published(self) -> bool:
        """Whether the blob is published: by :meth:`commit`, or by another writer that was waited for."""

    @property
    def path(self) -> Path | None:
        """A local file with the bytes so far, which may be read meanwhile; None for those that are kept in memory."""

    def write(self, chunk: bytes | memoryview, /) -> None:
        """Appends ``chunk``. Raises :class:`SizeMismatch`, and writes nothing, if it would exceed the size."""

    def restart(self) -> None:
        """Drops all written bytes; the offset becomes 0."""

    def commit(self) -> None:
        """Verifies size, then digest, and publishes; on return the blob survives a loss of power.

        A repeat does nothing. Raises :class:`TruncatedBody` when bytes are missing, and keeps the written ones;
        :class:`DigestMismatch` when they are wrong, and drops them.
        """

    def discard(self) -> None:
        """Drops all written bytes, on disk too. The writer accepts no more."""


class BlobStore(Protocol):
    """Blobs by digest, safe to use from several threads and processes at once."""

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool:
        """Whether the blob is published, with size ``size_bytes`` unless that is None."""

    def writer(
        self, digest: Digest, size_bytes: int, /, *, replaces: bool = False
    ) -> AbstractContextManager[BlobWriter]:
        """A writer for one blob that resumes an earlier download.

        With ``replaces``, published bytes are not trusted: the writer writes all bytes and replaces them. Raises
        :class:`UnsupportedDigest` for a digest that cannot be verified.
        """

    def resumable_path(self, digest: Digest, /) -> Path:
        """Where a process of this machine that downloads the blob keeps its bytes so far, unless they are few."""

    def open(self, digest: Digest, /) -> BinaryIO:
        """The bytes as a seekable stream, which the caller closes. Raises :class:`BlobMissing`."""

    def size(self, digest: Digest, /) -> int:
        """Size in bytes. Raises :class:`BlobMissing`."""

    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool:
        """Removes the blob; False when it is missing, so that a repeat is safe.

        An open reader can read on from a file system, but perhaps not from an object store. With ``stored_before``, a
        blob that was stored at that time or later is kept and the result is False: it was written again after it was
        found unreferenced. A running writer is not disturbed and publishes the blob.
        """

    def quarantine(self, digest: Digest, /) -> bool:
        """Moves a blob with wrong bytes into quarantine; False when it is missing.

        It is no longer published, so that the next sync fetches it, and its bytes are kept for inspection. Replaces an
        earlier one in quarantine.
        """

    def digests(self) -> Iterator[Digest]:
        """Every published blob, in no particular order."""

    def entries(self, unlisted: Unlisted | None = None, /) -> Iterator[StoredBlob]:
        """Every published blob with its size, listed folder by folder, without a request per blob.

        A folder that cannot be listed, though the store responds, is passed to ``unlisted`` and skipped; without
        ``unlisted`` its error is raised. Blobs may be deleted during the iteration; a blob published meanwhile may or
        may not be listed.
        """

    def quarantined(self) -> Iterator[StoredBlob]:
        """Every blob in quarantine; its time may be that of its publication."""

    def unknown_files(self) -> Iterator[str]:
        """Names below the root that are neither blobs nor the store's own: for reports, never to be removed.

        A folder that cannot contain blobs is one name.
        """

    def sweep_resumables(self, older_than_seconds: float, /) -> int:
        """Removes resumable downloads without a writer that were not modified for that long; returns their number.

        Also removes, whatever their age, the remains of downloads whose blobs are published. Raises
        :class:`BlobStoreError` after trying all when some could not be removed.
        """


#: No space: on the disk, in the quota, or under the process's file size limit.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Transient: a network file system that is unreachable, or a process or host out of handles or memory.
_TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
#: The codes of object stores for a full disk or an exhausted quota, whatever the status of the response.
_FULL_CODES = frozenset(
    {
        "BucketQuotaExceeded",
        "InsufficientStorage",
        "InsufficientStorageSpace",
        "NoSpaceLeft",
        "QuotaExceeded",
        "ServiceQuotaExceeded",
        "StorageCapExceeded",
        "StorageFull",
        "StorageQuotaExceeded",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioBucketQuotaExceeded",
        "XMinioDiskFull",
        "XMinioStorageFull",
    }
)
#: RFC 4918, section 11.5.
_INSUFFICIENT_STORAGE = 507
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def store_error(problem: OSError, place: str) -> BlobStoreError:
    """The error for ``problem``, raised while using ``place`` (a path or redacted URL)."""
    reason = str(problem.strerror or problem)[:300] or type(problem).__name__
    if problem.errno in FULL or says_full(problem):
        return BlobStoreFull(
            f"the blob store at {place} is full ({reason}): free space, raise the quota, or set [registry_sync] "
            "blob_store to a larger location; stored blobs are not affected"
        )
    if problem.errno in _TRANSIENT:
        return BlobStoreUnavailable(f"the blob store at {place} does not respond: {reason}")
    if problem.errno in _REFUSED or isinstance(problem, PermissionError):
        return BlobStoreError(
            f"the blob store at {place} refuses access: {reason}; Airflow's tasks must be able to read and write there"
        )
    return BlobStoreError(f"the blob store at {place} failed: {reason}")


def says_full(problem: BaseException) -> bool:
    """Whether ``problem`` or one of its causes is the response of a full object store.

    Drivers have no common type for it: botocore's error has a dictionary, others have an object with a status.
    """
    cause: BaseException | None = problem
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            code = response.get("Error", {}).get("Code")
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            code = getattr(cause, "error_code", None)
            status = getattr(response if response is not None else cause, "status_code", getattr(cause, "status", None))
        if status == _INSUFFICIENT_STORAGE or code in _FULL_CODES or code == str(_INSUFFICIENT_STORAGE):
            return True
        cause = cause.__cause__
    return False


def size_error(place: str, expected: int, found: int) -> BlobStoreError:
    """The error for a file at ``place`` whose stored size differs from the number of bytes written."""
    return BlobStoreError(
        f"the blob store at {place} keeps {found:,} bytes of a file to which {expected:,} were written, and nothing is "
        'stored; an S3-compatible store may keep the framing of checksums: see "S3-compatible stores" in the '
        "reference of the blob store"
    )


def not_removed(failures: Sequence[BlobStoreError], what: str) -> BlobStoreError:
    """The error for the ``failures`` to remove ``what`` while others were removed; temporary if the last one is."""
    return type(failures[-1])(f"{len(failures):,} {what} could not be removed; any others were: {failures[-1]}")


class _StoreErrors:
    """See :func:`store_errors`. No generator: every blob passes through several."""

    __slots__ = ("_place",)

    def __init__(self, place: object) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(problem, OSError):
            raise store_error(problem, str(problem.filename or self._place)) from problem


def store_errors(place: object) -> _StoreErrors:
    """Translates every :class:`OSError` of a ``with`` block; ``place`` is where it happened, if it does not say so."""
    return _StoreErrors(place)
