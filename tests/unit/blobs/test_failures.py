"""Errors of the system become ours by their number, never by their words."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from registry_sync.blobs.failures import store_error, store_errors
from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable


@pytest.mark.parametrize(
    ("number", "expected", "is_temporary"),
    [
        (errno.ENOSPC, BlobStoreFull, False),
        (errno.EDQUOT, BlobStoreFull, False),
        (errno.EFBIG, BlobStoreFull, False),
        (errno.ESTALE, BlobStoreUnavailable, True),
        (errno.ETIMEDOUT, BlobStoreUnavailable, True),
        (errno.EMFILE, BlobStoreUnavailable, True),
        (errno.EBUSY, BlobStoreUnavailable, True),
        (errno.EACCES, BlobStoreError, False),
        (errno.EROFS, BlobStoreError, False),
        (errno.EIO, BlobStoreError, False),
    ],
)
def test_the_number_of_an_error_decides_its_type(
    number: int, expected: type[BlobStoreError], is_temporary: bool
) -> None:
    error = store_error(OSError(number, os.strerror(number)), "/some/where")
    assert type(error) is expected
    assert error.is_temporary is is_temporary
    assert "/some/where" in str(error)
    assert os.strerror(number) in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_refusal_without_a_number_is_still_a_refusal() -> None:
    assert "must be allowed" in str(store_error(PermissionError("the key may not do that"), "s3://bucket"))


def test_an_error_without_words_is_called_by_its_type() -> None:
    assert "TimeoutError" in str(store_error(TimeoutError(), "s3://bucket"))


def test_the_file_that_an_error_names_is_named() -> None:
    with pytest.raises(BlobStoreError, match="/nowhere/at/all"), store_errors("/some/where"):
        Path("/nowhere/at/all").stat()
