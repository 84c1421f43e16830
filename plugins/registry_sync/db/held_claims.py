"""Claims on downloads: of the processes that need a manifest or a blob at the same time, one requests it.

A claim is a row of the metadata database by digest, which its holder shows to live once a second. Whoever sees one
stand still for :data:`LAPSED_SECONDS` by a clock of their own takes it over, so that nobody waits for a process that
has died, and no two machines' clocks are compared. A claim saves requests and guards nothing: content is addressed by
its digest, and without a database that can be written each process downloads for itself.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from registry_sync.db.download_claims import LAPSED_SECONDS
from registry_sync.domain.digests import Digest
from registry_sync.errors import DatabaseError

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.db.download_claims import DownloadClaim

_log = logging.getLogger(__name__)
#: How often a claim shows that its holder lives.
BEAT_SECONDS = 1.0


#: How often it is looked whether others are done, and how long those are waited for that live.
POLL_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 600.0

Item = TypeVar("Item")


class HeldClaims:
    """The claims of one process or task, kept alive by a thread as long as it has any. Threads may share one."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = database.download_claims
        self._clock = clock
        self._holder = str(uuid.uuid4())
        self._seen: dict[Digest, tuple[DownloadClaim, float]] = {}
        self._held: set[Digest] = set()
        self._unreleased: set[Digest] = set()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> HeldClaims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends its claims: what was not downloaded is for others to try."""
        with self._lock:
            held = list(self._held)
        self.release(held)
        self.close()

    def close(self) -> None:
        """Shows no more that it lives."""
        self._is_closed.set()

    def take(self, digest: Digest) -> bool:
        """Whether this process downloads ``digest`` from now on."""
        return not self.take_all([digest])

    def take_all(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of ``digests`` that others download; this process has the claims of the rest from now on.

        Asked again, it writes only for those that were released or have lapsed.
        """
        wanted = list(digests)
        try:
            # Those that were seen before are looked at first: mostly their holders are at work still.
            seen = [digest for digest in wanted if digest in self._seen]
            known = self._store.of_others(seen, self._holder) if seen else {}
            lapsed = {digest: claim for digest, claim in known.items() if self._has_lapsed(digest, claim)}
            others = {digest: claim for digest, claim in known.items() if digest not in lapsed}
            if free := [digest for digest in wanted if digest not in others]:
                others |= self._store.take_all(free, self._holder, lapsed=lapsed)
        except DatabaseError as problem:
            _log.warning("%d downloads are begun without a look at other processes: %s", len(wanted), problem)
            others = {}
        for digest, claim in others.items():
            if self._seen.get(digest, (None, 0.0))[0] != claim:
                self._seen[digest] = claim, self._clock()
        self._hold([digest for digest in wanted if digest not in others])
        return set(others)

    def release(self, digests: Iterable[Digest]) -> None:
        """Ends claims of this process; those of others stay. What the database does not take is ended the next time."""
        with self._lock:
            ended = self._held.intersection(digests) | self._unreleased
            self._held -= ended
            self._unreleased = set()
        if not ended:
            return
        try:
            self._store.release_all(ended, self._holder)
        except DatabaseError as problem:
            _log.debug("claims on %d downloads cannot be ended now: %s", len(ended), problem)
            with self._lock:
                self._unreleased |= ended - self._held

    def _has_lapsed(self, digest: Digest, claim: DownloadClaim) -> bool:
        seen, since = self._seen.get(digest, (None, 0.0))
        return seen == claim and self._clock() - since > LAPSED_SECONDS

    def _hold(self, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                self._seen.pop(digest, None)
                self._held.add(digest)
                self._unreleased.discard(digest)
            if self._held and self._thread is None and not self._is_closed.is_set():
                self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
                self._thread.start()

    def awaited(
        self,
        items: Sequence[Item],
        digest_of: Callable[[Item], Digest],
        is_over: Callable[[], bool] = lambda: False,
        *,
        longest_seconds: float = LONGEST_WAIT_SECONDS,
    ) -> Iterator[list[Item]]:
        """``items`` that others download, in groups as these end or die, with their claims; the rest at last as well.

        What another one has downloaded is stored by then, which the caller looks at first. The caller holds nothing
        that others wait for, and releases each group before it asks for the next. Ends without the rest once
        ``is_over``.
        """
        waiting, ends_at = list(items), self._clock() + longest_seconds
        while waiting and not is_over():
            taken = self.take_all(map(digest_of, waiting))
            ready = [item for item in waiting if digest_of(item) not in taken]
            if ready:
                yield ready
            elif self._clock() >= ends_at:
                yield waiting
                return
            else:
                self.pause()
            waiting = [item for item in waiting if digest_of(item) in taken]

    def pause(self) -> None:
        """Waits until it is worth looking again."""
        time.sleep(POLL_SECONDS)

    def _beat(self) -> None:
        while not self._is_closed.wait(BEAT_SECONDS):
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
            try:
                self._store.beat(self._holder)
            except DatabaseError as problem:
                _log.debug("claims on downloads are not renewed now: %s", problem)
