"""Packed blobs are the blobs that were packed, take little memory, and are planned as any other items are."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain import packed_blobs
from registry_sync.domain.digests import Digest
from registry_sync.domain.packed_blobs import PackedBlobs
from registry_sync.domain.runs import BLOB_OVERHEAD_BYTES, RequiredBlob
from support.shards import plan_shards

DIGESTS = st.builds(Digest.of, st.binary(max_size=4), st.sampled_from(["sha256", "sha512"]))
BLOBS = st.lists(
    st.builds(
        RequiredBlob,
        DIGESTS,
        st.integers(0, 1 << 40),
        st.sampled_from(["application/vnd.oci.image.layer.v1.tar+gzip", "text/plain", ""]),
        *[st.booleans()] * 4,
    ),
    max_size=40,
    unique_by=lambda blob: blob.digest,
).map(lambda blobs: sorted(blobs, key=lambda blob: blob.digest))


@given(blobs=BLOBS, start=st.integers(-50, 50), stop=st.integers(-50, 50))
def test_what_was_packed_is_read(blobs: list[RequiredBlob], start: int, stop: int) -> None:
    packed = PackedBlobs(iter(blobs))
    assert list(packed) == blobs
    assert len(packed) == len(blobs)
    assert list(packed[start:stop]) == blobs[start:stop]
    assert list(packed[::-2]) == blobs[::-2]
    assert [packed[-1 - index] for index in range(len(blobs))] == blobs[::-1]
    assert list(packed.sizes_bytes) == [blob.size_bytes for blob in blobs]
    assert packed.work_bytes == sum(blob.size_bytes + BLOB_OVERHEAD_BYTES for blob in blobs)


@pytest.mark.parametrize("index", [1, -2])
def test_there_is_none_beyond_the_last(index: int) -> None:
    with pytest.raises(IndexError):
        PackedBlobs([RequiredBlob(Digest.of(b"one"), 1, "text/plain")])[index]


@pytest.mark.parametrize("sorted_count", [1, 3, 16_384])
@given(blobs=BLOBS, max_shards=st.integers(1, 8), min_shard_bytes=st.integers(0, 1 << 41))
def test_shards_are_those_of_any_other_items(
    sorted_count: int, blobs: list[RequiredBlob], max_shards: int, min_shard_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_blobs, "_SORTED_COUNT", sorted_count)
        numbers = PackedBlobs(blobs).shards(max_shards=max_shards, min_shard_bytes=min_shard_bytes)
    costs = [(blob.digest, blob.size_bytes + BLOB_OVERHEAD_BYTES) for blob in blobs]
    planned = plan_shards(costs, max_shards=max_shards, min_cost=min_shard_bytes)
    shard_of = {digest: shard.number for shard in planned for digest in shard.items}
    assert list(numbers) == [shard_of[blob.digest] for blob in blobs]


@pytest.mark.slow
def test_a_blob_takes_some_fifty_bytes_and_its_plan_a_few_more() -> None:
    count = 40_000
    tracemalloc.start()
    try:
        packed = PackedBlobs(
            RequiredBlob(Digest(f"sha256:{number:064x}"), number % 997, "text/plain") for number in range(count)
        )
        held_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        packed.shards(max_shards=8, min_shard_bytes=1)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 64 * count
    assert peak_bytes - held_bytes < 80 * count
