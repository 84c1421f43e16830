"""What is measured of lists of digests is the same sync with and without one."""

from __future__ import annotations

from benchmarks import digest_lists


def test_the_list_is_used_in_one_way_and_each_tag_is_requested_in_the_other() -> None:
    result = digest_lists.measure(1, lambda _line: None, tag_count=40)
    assert result.requests == {"auto": 1 + 3, "off": 1 + 40}
    assert "unchanged, 40 tags: auto" in str(result)
    assert result.as_json()["ratio"] == result.ratio
