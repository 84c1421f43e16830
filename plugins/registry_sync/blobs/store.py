"""What every blob store promises, and the errors of the operating system turned into ours.

Stores differ in where the bytes lie, in nothing that a caller could notice.

A blob is published when all of its bytes were verified; until then nothing can be read under its digest. What was
written and not published is kept as a *partial* and continued by the next writer, also after a crash.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import BinaryIO, NamedTuple, Protocol

from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable

#: Called with the name of a folder and what its listing met.
Unlisted = Callable[[str, BlobStoreError], None]


class StoredBlob(NamedTuple):
    """A blob as a listing shows it.

    ``stored_at`` is when its bytes were last written or found complete by a writer, by the clock of the store.
    """

    digest: Digest
    size_bytes: int
    stored_at: datetime


class BlobWriter(Protocol):
    """Takes the bytes of one blob in order. For one thread; leaving it without :meth:`commit` keeps a partial.

    All methods raise :class:`BlobStoreFull` (what was written is given up, so that the disk has room again),
    :class:`BlobStoreUnavailable` or :class:`BlobStoreError`.
    """

    @property
    def offset(self) -> int:
        """How many bytes are there already. Equal to the size when the blob needs nothing but :meth:`commit`."""

    def write(self, chunk: bytes | memoryview, /) -> None:
        """Appends. Raises :class:`SizeMismatch` and takes nothing of ``chunk`` when that would pass the size."""

    def restart(self) -> None:
        """Forgets everything written; the offset becomes 0."""

    def commit(self) -> None:
        """Verifies size, then digest, and publishes; when it returns, the blob survives a loss of power.

        Again after that it does nothing. Raises :class:`TruncatedBody` when bytes are lacking, and keeps them;
        :class:`DigestMismatch` when they are wrong, and forgets them.
        """

    def discard(self) -> None:
        """Forgets everything written, on disk too. The writer takes no more."""


class BlobStore(Protocol):
    """Blobs by digest, safe to use from several threads and processes at once."""

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool:
        """Whether the blob is published, and of that size when one is given."""

    def writer(
        self, digest: Digest, size_bytes: int, /, *, replaces: bool = False
    ) -> AbstractContextManager[BlobWriter]:
        """A writer for one blob, beginning with what an earlier one left behind.

        With ``replaces`` bytes that are published are not trusted: it writes all of them, in place of those.

        Raises :class:`UnsupportedDigest` for a digest that cannot be verified.
        """

    def open(self, digest: Digest, /) -> BinaryIO:
        """The bytes, to read and to seek in; the caller closes it. Raises :class:`BlobMissing`."""

    def size(self, digest: Digest, /) -> int:
        """Size in bytes. Raises :class:`BlobMissing`."""

    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool:
        """Removes the blob; False when there was none, so that a repeat is safe.

        Who reads it at the moment reads on in a file system; an object store may have no more of it.
        With ``stored_before`` one that was stored at that time or later is left, and the answer is False: somebody
        wrote it again since it was found to be unneeded. A writer that is at work is not disturbed; it publishes.
        """

    def quarantine(self, digest: Digest, /) -> bool:
        """Sets a blob aside whose bytes are not those of its digest; False when there was none.

        It is not published afterwards, so that the next sync fetches it, and its bytes are kept for a person to look
        at. One that was set aside before is replaced.
        """

    def digests(self) -> Iterator[Digest]:
        """Every published blob, in no order that means anything."""

    def entries(self, unlisted: Unlisted | None = None, /) -> Iterator[StoredBlob]:
        """Every published blob with its size, listed folder by folder; nothing is asked for each blob.

        A folder that cannot be listed, though the store answers, is told to ``unlisted`` and passed over, or raised.
        Blobs may be deleted while it goes on. One that is published meanwhile may be listed or not.
        """

    def quarantined(self) -> Iterator[StoredBlob]:
        """Every blob that was set aside and not removed since; its time may be that of before."""

    def unknown_files(self) -> Iterator[str]:
        """Names below the root that are neither blobs nor the store's own, to report and never to remove.

        A folder in which no blob can lie stands for everything in it.
        """

    def sweep_resumables(self, older_than_seconds: float, /) -> int:
        """Removes partials that nobody writes and that were not touched for so long; how many.

        Also, whatever their age, what is left of a partial whose blob is published. Raises :class:`BlobStoreError`
        after all were tried when some could not be removed.
        """


#: No room: on the disk, in the quota, or under the process's limit of file size.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: May pass: network file systems that are away, and a process or host out of handles or memory.
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
#: What object stores call a full disk or a quota that is used up, whatever the status is that they say it with.
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
    """Our error for ``problem``, met while using ``place`` (a path or redacted URL)."""
    reason = str(problem.strerror or problem)[:300] or type(problem).__name__
    if problem.errno in FULL or says_full(problem):
        return BlobStoreFull(
            f"the blob store at {place} is full ({reason}): free space, raise the quota, or set [registry_sync] "
            "blob_store to a larger place; blobs that are stored stay good"
        )
    if problem.errno in _TRANSIENT:
        return BlobStoreUnavailable(f"the blob store at {place} does not answer: {reason}")
    if problem.errno in _REFUSED or isinstance(problem, PermissionError):
        return BlobStoreError(
            f"the blob store at {place} refuses: {reason}; Airflow's tasks must be allowed to read and write there"
        )
    return BlobStoreError(f"the blob store at {place} failed: {reason}")


def says_full(problem: BaseException) -> bool:
    """Whether ``problem``, or what caused it, is the answer of an object store that has no room.

    Drivers have no common type for such an answer; botocore's has a dictionary, others an object with a status.
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
    """The error of a file at ``place`` that holds another number of bytes than were written."""
    return BlobStoreError(
        f"the blob store at {place} keeps {found:,} bytes of a file to which {expected:,} were written, and nothing is "
        'stored; a store like S3 may keep the framing of checksums: see "Stores that speak like S3" in the reference '
        "of the blob store"
    )


def not_removed(failures: Sequence[BlobStoreError], what: str) -> BlobStoreError:
    """The error of ``failures``, met one by one while the others of ``what`` were removed; temporary if the last is."""
    return type(failures[-1])(f"{len(failures):,} {what} could not be removed, any others were: {failures[-1]}")


@contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Raises every :class:`OSError` of its body as ours."""
    try:
        yield
    except OSError as problem:
        raise store_error(problem, str(problem.filename or place)) from problem
