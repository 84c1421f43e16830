"""Threads over items: what succeeds is kept, what fails is told, what must stop stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

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


def _nested(work: Callable[[int], object], *, calls: int = 1, items: int = 4, threads: int = 4) -> None:
    """A call in each of ``calls`` items of another."""

    def call(number: int) -> None:
        first = number * items
        for_each(work, range(first, first + items), threads=threads, done=_nothing, failed=_nothing)

    for_each(call, range(calls), threads=calls, done=_nothing, failed=_raised)


def _nothing(_item: int, _result: object) -> None: ...


def _raised(_item: int, error: RegistrySyncError) -> None:
    raise error


def test_quick_items_of_a_nested_call_are_worked_on_in_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry_sync.sync.parallel.QUICK_SECONDS", 60.0)  # however busy the machine
    threads: set[str] = set()
    _nested(lambda _item: threads.add(threading.current_thread().name), items=3)
    assert len(threads) == 1


def test_slow_items_of_a_nested_call_are_worked_on_at_once() -> None:
    at_once = threading.Barrier(3)

    def work(item: int) -> None:
        if item == 0:  # the first shows that they are slow
            time.sleep(0.05)
        else:
            at_once.wait(5)

    _nested(work, items=4, threads=3)


def test_a_nested_call_works_on_no_more_slow_items_at_once_than_its_threads() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def work(_item: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.03)
        with lock:
            running[0] -= 1

    _nested(work, items=8, threads=2)
    assert most[0] == 2


def test_a_nested_call_that_waits_holds_up_no_other() -> None:
    """Each has twenty items that wait for those of all others."""
    all_others = threading.Barrier(4 * 19)

    def work(item: int) -> None:
        if item % 20 == 0:
            time.sleep(0.05)
        else:
            all_others.wait(10)

    _nested(work, calls=4, items=20, threads=20)


def test_an_error_in_a_nested_call_stops_it_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry_sync.sync.parallel.QUICK_SECONDS", 60.0)

    def work(item: int) -> None:
        if item == 2:
            raise ServerUnavailable("down")

    done: list[int] = []

    def call(_number: int) -> None:
        for_each(work, range(5), threads=4, done=lambda item, _result: done.append(item), failed=_raised)

    with pytest.raises(ServerUnavailable):
        for_each(call, [0], threads=1, done=_nothing, failed=_raised)
    assert done == [0, 1]


@pytest.mark.timeout(30)
def test_threads_that_the_system_does_not_allow_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool keeps what it found no thread for, and its end must not wait for that."""
    start, started = threading.Thread.start, list[threading.Thread]()

    def start_some(thread: threading.Thread) -> None:
        if thread.name.startswith("registry-sync") and len(started) >= most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    done: list[int] = []

    def sync() -> None:
        for_each(
            lambda item: item,
            range(20),
            threads=8,
            done=lambda item, _result: done.append(item),
            failed=lambda _item, _error: None,
        )

    most = 2
    sync()
    assert sorted(done) == list(range(20))
    most = 0
    with pytest.raises(RuntimeError, match="new thread"):
        sync()
