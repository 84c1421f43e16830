"""Errors of the operating system turned into ours, once, at the edge of the store."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable

#: No room: on the disk, in the quota, or under the process's limit of file size.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: May pass: network file systems that are away, and a process or host out of handles or memory.
_PASSING = frozenset(
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
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def store_error(problem: OSError, place: str) -> BlobStoreError:
    """Our error for ``problem``, met while using ``place`` (a path or redacted URL)."""
    reason = str(problem.strerror or problem)[:300] or type(problem).__name__
    if problem.errno in FULL:
        return BlobStoreFull(
            f"the blob store at {place} is full ({reason}): free space, raise the quota, or set [registry_sync] "
            "blob_store to a larger place; blobs that are stored stay good"
        )
    if problem.errno in _PASSING:
        return BlobStoreUnavailable(f"the blob store at {place} does not answer: {reason}")
    if problem.errno in _REFUSED or isinstance(problem, PermissionError):
        return BlobStoreError(
            f"the blob store at {place} refuses: {reason}; Airflow's tasks must be allowed to read and write there"
        )
    return BlobStoreError(f"the blob store at {place} failed: {reason}")


@contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Raises every :class:`OSError` of its body as ours."""
    try:
        yield
    except OSError as problem:
        raise store_error(problem, str(problem.filename or place)) from problem
