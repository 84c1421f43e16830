"""Threads over items: what succeeds is kept, what fails is told, what must stop stops."""

from __future__ import annotations

import threading
import time

import pytest

from registry_sync.errors import RegistrySyncError, ServerUnavailable
from registry_sync.sync.parallel import for_each


def test_every_item_ends_in_done_or_failed_once() -> None:
    def work(item: int) -> int:
        if item % 3 == 0:
            raise ServerUnavailable(f"item {item}")
        return item * item

    done: dict[int, int] = {}
    failed: list[int] = []
    for_each(work, range(100), threads=8, done=done.__setitem__, failed=lambda item, _error: failed.append(item))
    assert done == {item: item * item for item in range(100) if item % 3}
    assert sorted(failed) == list(range(0, 100, 3))


def test_callbacks_run_in_the_callers_thread() -> None:
    threads: set[int] = set()
    for_each(
        lambda item: item,
        range(10),
        threads=4,
        done=lambda _item, _result: threads.add(threading.get_ident()),
        failed=lambda _item, _error: None,
    )
    assert threads == {threading.get_ident()}


def test_no_more_than_the_given_threads_work_at_once() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def work(_item: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.005)
        with lock:
            running[0] -= 1

    for_each(work, range(40), threads=3, done=lambda _i, _r: None, failed=lambda _i, _e: None)
    assert most[0] == 3


def test_an_error_that_failed_raises_stops_what_has_not_started() -> None:
    started: list[int] = []

    def work(item: int) -> None:
        started.append(item)
        raise ServerUnavailable("down")

    def failed(_item: int, error: Exception) -> None:
        raise error

    with pytest.raises(ServerUnavailable):
        for_each(work, range(10_000), threads=2, done=lambda _i, _r: None, failed=failed)
    assert len(started) < 20


def test_a_bug_in_the_work_is_not_swallowed() -> None:
    def work(item: int) -> float:
        return 1 / item

    with pytest.raises(ZeroDivisionError):
        for_each(work, [1, 0], threads=1, done=lambda _i, _r: None, failed=lambda _i, _e: None)


def test_no_items_is_no_work() -> None:
    for_each(lambda item: item, [], threads=4, done=lambda _i, _r: None, failed=lambda _i, _e: None)


@pytest.mark.rule("A9.13")
def test_what_was_started_and_succeeds_is_kept_when_another_item_stops_the_rest() -> None:
    failed_one, others_begun = threading.Event(), threading.Barrier(4)

    def work(item: int) -> int:
        others_begun.wait(5)
        if item == 0:
            raise ServerUnavailable("down")
        assert failed_one.wait(5)
        return item

    def failed(_item: int, error: RegistrySyncError) -> None:
        failed_one.set()
        raise error

    done: dict[int, int] = {}
    with pytest.raises(ServerUnavailable):
        for_each(work, range(4), threads=4, done=done.__setitem__, failed=failed)
    assert done == {1: 1, 2: 2, 3: 3}


def test_what_done_itself_refuses_is_not_given_to_it_again() -> None:
    calls: list[int] = []

    def done(item: int, _result: int) -> None:
        calls.append(item)
        raise ServerUnavailable("the database is away")

    with pytest.raises(ServerUnavailable):
        for_each(lambda item: item, range(8), threads=4, done=done, failed=lambda _item, _error: None)
    assert len(calls) == 1
