"""What pulls ask of the database, asked rarely: names together in one query, and content remembered.

What a name stands for is asked anew for each request, so that a pull sees every commit that ended before it began:
SQLite says at once whether there was a commit, otherwise requests that wait at the same time share one query, which
begins after the last of them came. What a version holds never changes, so it is remembered; see
:attr:`~registry_sync.domain.serving.PublishedVersion.state`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from cachetools import LRUCache

from registry_sync.db.database import Database
from registry_sync.db.pulls import PublishedBlob, PublishedTag, Referrer
from registry_sync.domain.content_units import StoredManifest
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.domain.serving import PublishedVersion

T = TypeVar("T")
#: Bytes of manifests and of what is known of tags and blobs that one process remembers, about.
MANIFEST_CACHE_BYTES = 32 * 1024 * 1024
ENTRY_CACHE_COUNT, NAME_CACHE_COUNT = 100_000, 10_000
#: What a remembered manifest takes besides its bytes, about.
_OVERHEAD_BYTES = 512
_THREADS = 4


class Lookups:
    """Of one process, and of one event loop. Errors of the database come out as ours."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lookups")
        self._waiting: dict[str, list[asyncio.Future[PublishedVersion | None]]] = {}
        self._batch: asyncio.Task[None] | None = None
        self._manifests: LRUCache[Hashable, StoredManifest] = LRUCache(
            MANIFEST_CACHE_BYTES, getsizeof=lambda manifest: len(manifest.data) + _OVERHEAD_BYTES
        )
        self._entries: LRUCache[Hashable, Any] = LRUCache(ENTRY_CACHE_COUNT)
        self._commits = database.commit_counter()
        self._commit: int | None = None
        #: What names stood for after that commit.
        self._published: LRUCache[str, PublishedVersion] = LRUCache(NAME_CACHE_COUNT)

    def close(self) -> None:
        """Ends its threads; requests that wait for one fail."""
        self._commits.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, ask: Callable[[], T]) -> T:
        """``ask`` in one of the threads that talk to the database."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    async def published(self, name: str) -> PublishedVersion | None:
        """What ``name`` stands for now; None when nothing is distributed under it."""
        if self._last_commit() is not None and (found := self._published.get(name)) is not None:
            return found
        future: asyncio.Future[PublishedVersion | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(future)
        if self._batch is None:
            self._batch = asyncio.create_task(self._ask_in_batches())
        return await future

    def _last_commit(self) -> int | None:
        """Which one it was; None when the database does not say. What was known before it is forgotten."""
        commit = self._commits.read()
        if commit != self._commit:
            self._published.clear()
            self._commit = commit
        return commit

    async def _ask_in_batches(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                names, commit = tuple(waiting), self._last_commit()
                try:
                    found = await self.run(partial(self._database.pulls.published, names))
                except Exception as problem:  # noqa: BLE001 - each request that waits gets it
                    for _, future in _waiting_still(waiting):
                        future.set_exception(problem)
                else:
                    if commit is not None and commit == self._commit:
                        self._published.update(found)
                    for name, future in _waiting_still(waiting):
                        future.set_result(found.get(name))
        finally:
            self._batch = None

    async def tag(self, version: PublishedVersion, name: TagName) -> Digest | None:
        """The digest that a tag stands for in the version."""
        key = ("tag", version.repository_id, version.number, name)
        return await self._remembered(self._entries, key, lambda: self._database.pulls.tag(version, name))

    async def manifest(self, version: PublishedVersion, digest: Digest) -> StoredManifest | None:
        """A manifest that can be had through the version; see :meth:`PullStore.manifest`."""
        key = (*_reach(version), digest)
        return await self._remembered(self._manifests, key, lambda: self._database.pulls.manifest(version, digest))

    async def blob(self, version: PublishedVersion, digest: Digest) -> PublishedBlob | None:
        """A blob that can be had through the version."""
        key = ("blob", *_reach(version), digest)
        return await self._remembered(self._entries, key, lambda: self._database.pulls.blob(version, digest))

    async def tags(self, version: PublishedVersion, after: str | None, limit: int) -> list[PublishedTag]:
        """See :meth:`PullStore.tags`."""
        return await self.run(lambda: self._database.pulls.tags(version, after, limit))

    async def referrers(
        self, version: PublishedVersion, subject: Digest, *, artifact_type: str | None, after: str | None, limit: int
    ) -> list[Referrer]:
        """See :meth:`PullStore.referrers`."""
        return await self.run(
            lambda: self._database.pulls.referrers(
                version, subject, artifact_type=artifact_type, after=after, limit=limit
            )
        )

    async def base_paths(self, after: str | None, limit: int) -> list[tuple[str, bool]]:
        """See :meth:`PullStore.base_paths`."""
        return await self.run(lambda: self._database.pulls.base_paths(after, limit))

    async def _remembered(self, cache: LRUCache[Hashable, Any], key: Hashable, ask: Callable[[], T | None]) -> T | None:
        """What was found is remembered; what was not is asked for again, as it costs a client that is wrong."""
        found: T | None = cache.get(key)
        if found is None:
            found = await self.run(ask)
            if found is not None:
                with suppress(ValueError):  # larger than the whole cache
                    cache[key] = found
        return found


def _reach(version: PublishedVersion) -> tuple[Hashable, ...]:
    """What decides whether content can be had: the version, or whichever versions the repository has."""
    return (version.repository_id, version.number if version.is_fixed else version.state)


def _waiting_still(
    waiting: dict[str, list[asyncio.Future[PublishedVersion | None]]],
) -> Iterator[tuple[str, asyncio.Future[PublishedVersion | None]]]:
    """Those whose client has not gone away."""
    return ((name, future) for name, futures in waiting.items() for future in futures if not future.done())
