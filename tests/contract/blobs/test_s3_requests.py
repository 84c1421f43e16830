"""Objects that S3 joins: whole, or not at all, and nothing invisible is left."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest

from registry_sync.blobs.remote_files import join_objects
from support.blob_stores import MEBIBYTE, Place, put
from support.images import Blob
from support.object_store import LEAST_PART_BYTES

pytestmark = pytest.mark.parametrize("place", ["s3"], indirect=True)


@pytest.fixture
def bucket(place: Place) -> str:
    return place.url.split("/")[2]


@pytest.fixture
def filesystem(bucket: str) -> Any:
    filesystem = fsspec.filesystem("s3")
    filesystem.pipe_file(f"{bucket}/one", b"1" * LEAST_PART_BYTES)
    filesystem.pipe_file(f"{bucket}/two", b"2" * 7)
    return filesystem


def _uploads(filesystem: Any, bucket: str) -> list[str]:
    return [upload["Key"] for upload in filesystem.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])]


def test_what_is_joined_has_the_bytes_of_all_in_their_order(filesystem: Any, bucket: str) -> None:
    join_objects(filesystem, [f"{bucket}/one", f"{bucket}/one", f"{bucket}/two"], f"{bucket}/joined")
    assert filesystem.cat_file(f"{bucket}/joined") == b"1" * 2 * LEAST_PART_BYTES + b"2" * 7
    assert _uploads(filesystem, bucket) == []


@pytest.mark.parametrize(
    ("sources", "error"), [(("one", "gone"), FileNotFoundError), (("two", "one"), OSError)], ids=["missing", "short"]
)
def test_what_cannot_be_joined_is_aborted(
    filesystem: Any, bucket: str, sources: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        join_objects(filesystem, [f"{bucket}/{name}" for name in sources], f"{bucket}/joined")
    assert not filesystem.exists(f"{bucket}/joined")
    assert _uploads(filesystem, bucket) == []


def test_an_open_blob_reads_nothing_ahead(place: Place) -> None:
    """A worker would hold as much for each pull that it streams."""
    blob = Blob.random(7, 4 * MEBIBYTE)
    store = place.open()
    put(store, blob)
    with store.open(blob.digest) as file:
        assert file.read(1) == blob.data[:1]
        assert not hasattr(file.cache, "cache")  # type: ignore[attr-defined]
        assert file.read() == blob.data[1:]
