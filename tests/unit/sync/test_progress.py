"""Progress lines: few, and saying what a person wants to know."""

from __future__ import annotations

import pytest

from registry_sync.sync.progress import Progress, format_bytes, format_count


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.0 KiB"),
        (340 * 1024 * 1024, "340 MiB"),
        (999.9 * 1024, "1000 KiB"),
        (1 << 40, "1.0 TiB"),
        (5000 * (1 << 40), "5000 TiB"),
    ],
)
def test_bytes_read_in_binary_units_with_few_digits(size: float, text: str) -> None:
    assert format_bytes(size) == text


def test_one_is_singular_and_thousands_are_grouped() -> None:
    assert [format_count(count, "tag") for count in (0, 1, 3000)] == ["0 tags", "1 tag", "3,000 tags"]


def test_lines_come_at_most_every_interval_and_once_at_the_end() -> None:
    clock, lines = Clock(), []
    progress = Progress(lines.append, "blob", 1000, 1000 * 1024, interval_seconds=5, clock=clock)
    for _ in range(1000):
        clock.now += 0.01
        progress.add(1, 1024)
    progress.finish()
    assert len(lines) == 2
    assert lines[0] == "500 of 1,000 blobs, 500 KiB of 1.0 MiB, 100 KiB/s, 500 KiB left, about 5 s"
    assert lines[1] == "1,000 of 1,000 blobs, 1.0 MiB of 1.0 MiB, 100 KiB/s in 10.0 s"


def test_without_bytes_only_the_count_and_the_time_are_told() -> None:
    clock, lines = Clock(), []
    progress = Progress(lines.append, "tag", 2, clock=clock)
    progress.add(2)
    clock.now += 1.5
    progress.finish()
    assert lines == ["2 of 2 tags in 1.5 s"]


def test_a_run_of_no_time_does_not_divide_by_zero() -> None:
    lines: list[str] = []
    Progress(lines.append, "blob", 0, 10, clock=Clock()).finish()
    assert lines == ["0 of 0 blobs, 0 B of 10 B, 0 B/s in 0.0 s"]
