"""Errors of the operating system turned into ours, once, at the edge of the store."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable

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
