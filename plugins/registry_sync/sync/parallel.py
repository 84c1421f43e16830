"""Work on many small items by threads, without losing what succeeded when something fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from registry_sync.errors import RegistrySyncError

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    done: Callable[[Item, Result], None],
    failed: Callable[[Item, RegistrySyncError], None],
) -> None:
    """``work`` on every item, at most ``threads`` at once.

    ``done`` and ``failed`` are called in the caller's thread, as items finish. An exception that they raise, or
    one of ``work`` that is no :class:`RegistrySyncError`, stops the rest: what runs is finished, what waits is
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

        fill()
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    item = running.pop(future)
                    try:
                        result = future.result()
                    except RegistrySyncError as error:
                        failed(item, error)
                    else:
                        done(item, result)
                fill()
        finally:
            for future in running:
                future.cancel()
