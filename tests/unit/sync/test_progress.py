"""Progress lines: few, and saying what a person wants to know."""

from __future__ import annotations

from registry_sync.sync.parallel import Progress, warn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_most_every_interval_and_once_at_the_end() -> None:
    clock, lines = Clock(), []
    progress = Progress(lines.append, "blob", 1000, 1000 * 1024, interval_seconds=5, clock=clock)
    for _ in range(1000):
        clock.now += 0.01
        progress.add(1, 1024)
    progress.finish()
    assert len(lines) == 2
    assert lines[0] == "500 of 1,000 blobs, 500 KiB of 1.0 MiB, 100 KiB/s, 500 KiB left, about 5.0 s"
    assert lines[1] == "1,000 of 1,000 blobs, 1.0 MiB of 1.0 MiB, 100 KiB/s in 10 s"


def test_without_bytes_only_the_count_and_the_time_are_reported() -> None:
    clock, lines = Clock(), []
    progress = Progress(lines.append, "tag", 2, clock=clock)
    progress.add(2)
    clock.now += 1.5
    progress.finish()
    assert lines == ["2 of 2 tags in 1.5 s"]


def test_a_run_of_no_time_does_not_divide_by_zero() -> None:
    lines: list[str] = []
    progress = Progress(lines.append, "blob", 1, 10, clock=Clock())
    progress.add(1, 10)
    progress.finish()
    assert lines == ["1 of 1 blob, 10 B of 10 B, 0 B/s in 0.0 s"]


def test_nothing_to_do_is_not_reported() -> None:
    lines: list[str] = []
    Progress(lines.append, "blob", 0, clock=Clock()).finish()
    assert lines == []


def test_what_arrives_counts_before_it_is_whole_so_that_the_time_left_is_true() -> None:
    clock, lines = Clock(), []
    progress = Progress(lines.append, "blob", 3, 300 << 20, clock=clock)
    progress.add(1, 100, 100)
    progress.receive(100)
    clock.now += 10
    progress.receive(50 << 20)
    progress.report()
    assert lines == ["1 of 3 blobs, 50.0 MiB of 300 MiB, 5.0 MiB/s, 250 MiB left, about 50 s"]


def test_what_was_there_already_does_not_make_the_rest_look_fast() -> None:
    clock, lines = Clock(), []
    progress = Progress(lines.append, "blob", 2, 300 << 20, clock=clock)
    progress.receive(10 << 20)
    clock.now += 10
    progress.add(1, 200 << 20)
    assert lines == ["1 of 2 blobs, 210 MiB of 300 MiB, 1.0 MiB/s, 90.0 MiB left, about 1 min 30 s"]


def test_a_warning_is_one_where_such_are_known() -> None:
    class Report(list[str]):
        def __call__(self, line: str) -> None:
            self.append(line)

        def warning(self, line: str) -> None:
            self.append(f"warning: {line}")

    report, lines = Report(), list[str]()
    warn(report, "held")
    warn(lines.append, "held")
    assert (report, lines) == (["warning: held"], ["held"])
