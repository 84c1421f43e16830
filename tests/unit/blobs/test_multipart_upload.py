"""How a blob is divided, and what its parts are called."""

from __future__ import annotations

import pytest

from registry_sync.blobs.resume.multipart_upload import MAX_PART_COUNT, PART_BYTES, Part, part_bytes

GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, PART_BYTES),
        (PART_BYTES * MAX_PART_COUNT, PART_BYTES),
        (PART_BYTES * MAX_PART_COUNT + 1, 2 * PART_BYTES),
        (500 * GIBIBYTE, 8 * PART_BYTES),
    ],
)
def test_a_very_large_blob_has_larger_parts(size_bytes: int, expected: int) -> None:
    assert part_bytes(size_bytes) == expected
    assert size_bytes <= expected * MAX_PART_COUNT


def test_the_names_of_parts_sort_as_the_parts_do() -> None:
    parts = [Part(begin, begin + PART_BYTES, "ab") for begin in range(0, 200 * GIBIBYTE, 32 * GIBIBYTE)]
    assert sorted(part.name for part in parts) == [part.name for part in parts]
