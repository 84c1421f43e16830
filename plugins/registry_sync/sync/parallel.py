"""Work on many small items by threads, without losing what succeeded when something fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from registry_sync.errors import RegistrySyncError

IDLE_SECONDS = 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    done: Callable[[Item, Result], None],
    failed: Callable[[Item, RegistrySyncError], None],
    idle: Callable[[], None] | None = None,
) -> None:
    """``work`` on every item, at most ``threads`` at once.

    ``done`` and ``failed`` are called in the caller's thread, as items finish, and ``idle`` every few seconds in which
    none does. An exception that they raise, or one of ``work`` that is no :class:`RegistrySyncError`, stops the rest:
    what runs is finished, and given to ``done`` where it succeeded, unless it was ``done`` that raised; what waits is
    not begun.
    """
    waiting = iter(items)
    running: dict[Future[Result], Item] = {}
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="registry-sync") as pool:

        def fill() -> None:
            while len(running) < 2 * threads:
                try:
                    item = next(waiting)
                except StopIteration:
                    return
                running[pool.submit(work, item)] = item

        is_done_raising = False
        fill()
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED, timeout=IDLE_SECONDS if idle else None)
                if idle and not finished:
                    idle()
                for future in finished:
                    item = running.pop(future)
                    try:
                        result = future.result()
                    except RegistrySyncError as error:
                        failed(item, error)
                    else:
                        is_done_raising = True
                        done(item, result)
                        is_done_raising = False
                fill()
        finally:
            left = [future for future in running if not future.cancel()]
            if not is_done_raising:
                for future in as_completed(left):
                    if future.exception() is None:
                        done(running[future], future.result())
