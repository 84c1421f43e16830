"""Errors of the system become ours by their number, never by their words."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from registry_sync.blobs.store import not_removed, size_error, store_error, store_errors
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
    assert "must be able" in str(store_error(PermissionError("the key may not do that"), "s3://bucket"))


def test_an_error_without_words_is_called_by_its_type() -> None:
    assert "TimeoutError" in str(store_error(TimeoutError(), "s3://bucket"))


def test_the_file_that_an_error_names_is_named() -> None:
    with pytest.raises(BlobStoreError, match="/nowhere/at/all"), store_errors("/some/where"):
        Path("/nowhere/at/all").stat()


class Answered(OSError):
    """The errors of drivers for responses of object stores: botocore has a dictionary, others have a status."""

    def __init__(self, **said: object) -> None:
        super().__init__(errno.EIO, "the store said no")
        self.__dict__.update(said)


class _Response:
    status_code = 507


@pytest.mark.parametrize(
    "response",
    [
        {"response": {"Error": {"Code": "QuotaExceeded"}, "ResponseMetadata": {"HTTPStatusCode": 403}}},
        {"response": {"Error": {"Code": "507"}}},
        {"response": {"ResponseMetadata": {"HTTPStatusCode": 507}}},
        {"response": _Response()},
        {"status_code": 507},
        {"status": 507},
        {"error_code": "InsufficientStorage"},
    ],
)
def test_an_object_store_that_says_in_its_own_words_that_it_is_full_is_full(response: dict[str, object]) -> None:
    translated = OSError(errno.EIO, "something went wrong")
    translated.__cause__ = Answered(**response)
    assert type(store_error(translated, "s3://bucket")) is BlobStoreFull


def test_an_object_store_that_refuses_is_not_full() -> None:
    refused = Answered(response={"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}})
    assert type(store_error(refused, "s3://bucket")) is BlobStoreError


def test_a_file_of_another_size_says_both_sizes_and_where_to_read_on() -> None:
    said = str(size_error("s3://bucket", 1000, 1086))
    assert "1,086" in said
    assert "1,000" in said
    assert "S3-compatible stores" in said


def test_what_could_not_be_removed_is_as_temporary_as_the_last_of_it() -> None:
    assert not not_removed([BlobStoreUnavailable("away"), BlobStoreError("locked")], "files").is_temporary
    assert "2 files" in str(not_removed([BlobStoreError("locked"), BlobStoreUnavailable("away")], "files"))
