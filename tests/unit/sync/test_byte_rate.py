"""Turns of reading threads: evenly by bytes, nothing saved up, none without a limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.sync.maintenance.verify import ByteRate


class Time:
    """Time that passes by sleeping, and when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_bytes_are_waited_for_after_they_were_taken() -> None:
    time = Time()
    rate = ByteRate(1000, clock=lambda: time.now, sleep=time.sleep)
    for size_bytes in (500, 2000, 1):
        rate.take(size_bytes)
    assert time.slept == pytest.approx([0.5, 2.0])


def test_a_pause_is_not_made_up_for() -> None:
    time = Time()
    rate = ByteRate(1000, clock=lambda: time.now, sleep=time.sleep)
    rate.take(100)
    time.now += 60
    rate.take(1000)
    rate.take(1)
    assert time.slept == pytest.approx([1.0])


def test_without_a_limit_nobody_waits() -> None:
    time = Time()
    rate = ByteRate(None, clock=lambda: time.now, sleep=time.sleep)
    rate.take(10**12)
    rate.take(1)
    assert time.slept == []


def test_threads_share_one_rate() -> None:
    slept: list[float] = []
    rate = ByteRate(100, clock=lambda: 0.0, sleep=slept.append)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rate.take, [10] * 11))
    assert sorted(slept) == pytest.approx([number / 10 for number in range(1, 11)])
