"""``watch_tags``: an asset that is updated when watched tags of an upstream move, by one poll loop for many of them.

Airflow's triggerer runs one loop for all triggers of one registry, connection and pace (a shared stream), and reports
how far their events are stored in its database. Only then is a digest recorded as seen, in the asset state store: after
a crash of the triggerer a move is reported again rather than lost. A sync that finds nothing new makes no version, so
that a repeated event is harmless.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from registry_sync.domain.references import RegistryUrl, RepositoryName, TagFilter
from registry_sync.errors import ConfigurationError, RegistrySyncError
from registry_sync.sync.watch_tags import Observation, TagWatch, WatchedTags, compare

if TYPE_CHECKING:
    from registry_sync.oci.client import RegistryClient

log = logging.getLogger(__name__)

#: The key of the asset state store: a mapping as in :mod:`registry_sync.sync.watch_tags`.
STATE_KEY = "registry_sync_tags"
#: The most changes in an event.
MAX_EVENT_CHANGES = 100
POLL_SECONDS, REQUESTS_PER_MINUTE = 15.0, 120
_SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 1.0, 86_400.0
#: A client is opened anew after this time, so that a changed connection counts.
_CLIENT_SECONDS = 600.0
#: How long nothing is tried while the connection cannot be used.
_PAUSE_SECONDS = 60.0
#: How long the loop waits for the first of its triggers.
_IDLE_SECONDS = 0.1
_LONGEST_NAME = 200


def watch_tags(
    url: str,
    upstream_name: str,
    tags: Sequence[str] | str | None = None,
    *,
    exclude_tags: Sequence[str] | str | None = None,
    conn_id: str | None = None,
    poll_seconds: float = POLL_SECONDS,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> Asset:
    """An asset for ``schedule=`` of a DAG, which then runs once at first, and whenever a watched tag moves.

    Tags that appear and those that go count as well. Raises :class:`ConfigurationError` and
    :class:`~registry_sync.errors.InvalidReference` at parsing.

    :param url: address of the registry, such as ``https://quay.io``
    :param upstream_name: name of the repository on that registry
    :param tags: tags to watch, names or globs, as a list or text with commas; None for all. Names cost less, as the
        repository is not listed
    :param exclude_tags: tags to exclude, likewise
    :param conn_id: Airflow connection with the credentials; None for anonymous
    :param poll_seconds: seconds between two looks, 1 to 86,400
    :param requests_per_minute: the most requests for single tags of all that is watched on the registry with this
        connection and these numbers; tags beyond it are looked at in turn
    """
    registry, upstream = RegistryUrl.parse(url), RepositoryName(upstream_name)
    included, excluded = _entries(tags), _entries(exclude_tags) or []
    TagFilter.parse(included, excluded)
    if not _SHORTEST_POLL_SECONDS <= poll_seconds <= _LONGEST_POLL_SECONDS:
        raise ConfigurationError(f"poll_seconds is {poll_seconds!r}; give a number from 1 to 86400")
    if requests_per_minute < 1:
        raise ConfigurationError(f"requests_per_minute is {requests_per_minute!r}; give 1 or more")
    place = f"{registry.netloc}/{registry.upstream_name(upstream)}"
    which = _label(included, excluded)
    trigger = WatchedTagsTrigger(
        asset=f"registry_sync_upstream/{place}{which}",
        url=str(registry),
        upstream_name=str(upstream),
        tags=included,
        exclude_tags=excluded,
        conn_id=conn_id,
        poll_seconds=float(poll_seconds),
        requests_per_minute=requests_per_minute,
    )
    uri = f"x-registry-sync-upstream://{place}{which}"
    return Asset(name=trigger.asset, uri=uri, watchers=[AssetWatcher(name="tags", trigger=trigger)])


def _entries(given: Sequence[str] | str | None) -> list[str] | None:
    if given is None:
        return None
    return [entry.strip() for entry in (given.split(",") if isinstance(given, str) else given) if entry.strip()]


def _label(included: Sequence[str] | None, excluded: Sequence[str]) -> str:
    """``:3.*,latest,!*_rc``, shortened to a fingerprint when it is long; empty for all tags."""
    entries = [*(included or []), *(f"!{entry}" for entry in excluded)]
    if included is None and not excluded:
        return ""
    text = ",".join(entries)
    if len(text) > _LONGEST_NAME:
        text = f"{len(entries)}-entries-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f":{text}"


@dataclass(frozen=True)
class Turn:
    """One look at the watched repositories of a registry."""

    number: int
    seen: Mapping[RepositoryName, Observation]


class WatchedTagsTrigger(BaseEventTrigger):
    """Fires when watched tags of one upstream repository have moved; see :func:`watch_tags`.

    :param asset: name of the asset, which keeps triggers of two assets apart that watch the same
    :param url: address of the registry
    :param upstream_name: name of the repository on that registry
    :param tags: names or globs; None for all tags
    :param exclude_tags: names or globs to exclude
    :param conn_id: Airflow connection with the credentials; None for anonymous
    :param poll_seconds: seconds between two looks
    :param requests_per_minute: the most requests for single tags of the whole loop
    """

    def __init__(
        self,
        *,
        asset: str,
        url: str,
        upstream_name: str,
        tags: Sequence[str] | None = None,
        exclude_tags: Sequence[str] = (),
        conn_id: str | None = None,
        poll_seconds: float = POLL_SECONDS,
        requests_per_minute: int = REQUESTS_PER_MINUTE,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asset = asset
        self.url = url
        self.upstream_name = upstream_name
        self.tags = None if tags is None else list(tags)
        self.exclude_tags = list(exclude_tags)
        self.conn_id = conn_id
        self.poll_seconds = poll_seconds
        self.requests_per_minute = requests_per_minute
        self._known: dict[str, str | None] | None = None
        self._unsaved: tuple[int, dict[str, str | None]] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments."""
        names = ("asset", "url", "upstream_name", "tags", "exclude_tags", "conn_id", "poll_seconds")
        arguments = {name: getattr(self, name) for name in (*names, "requests_per_minute")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    def shared_stream_key(self) -> Hashable:
        """One loop for all that is watched on a registry with one connection at one pace."""
        return ("registry_sync", self.url, self.conn_id, self.poll_seconds, self.requests_per_minute)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """The loop; only arguments that are in the key are read."""
        return TagLoop(cls(**kwargs))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Turn]) -> AsyncIterator[TriggerEvent]:
        """An event for each turn that saw a change; the first one ever is an event in any case."""
        watching = _WATCHING.setdefault(self.shared_stream_key(), {})
        is_first = await self._load()
        watching[id(self)] = self
        try:
            async for turn in shared_stream:
                seen = turn.seen.get(RepositoryName(self.upstream_name))
                if seen is None:
                    continue
                changes, known = compare(self._known or {}, seen, self.watched.tag_filter)
                if known != self._known:
                    self._known, self._unsaved = known, (turn.number, known)
                if changes or is_first:
                    yield TriggerEvent(self._payload(changes, is_first=is_first))  # type: ignore[no-untyped-call]
                    is_first = False
        finally:
            watching.pop(id(self), None)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same with a loop of its own, where the triggerer offers no shared one."""
        loop = TagLoop(self)

        async def turns() -> AsyncIterator[Turn]:
            async for turn, number in loop.open_stream():
                yield turn
                await loop.save(number)

        try:
            async for event in self.filter_shared_stream(turns()):
                yield event
        finally:
            await loop.aclose()

    @property
    def watched(self) -> WatchedTags:
        """What the loop looks at for this trigger."""
        return WatchedTags(TagFilter.parse(self.tags, self.exclude_tags), self._known or {})

    async def save(self, number: int) -> None:
        """Records what was known at turn ``number``, when its events are stored. A failure is tried again later."""
        if self._unsaved is None or self._unsaved[0] > number or self.asset_state_store is None:
            return
        unsaved = self._unsaved
        try:
            await self.asset_state_store.aset(STATE_KEY, dict(unsaved[1]))
        except Exception as problem:  # noqa: BLE001  whatever Airflow raises, the loop goes on
            log.warning("what is known of the tags of %s could not be recorded: %s", self.asset, problem)
            return
        if self._unsaved is unsaved:
            self._unsaved = None

    async def _load(self) -> bool:
        """Reads what was known before; whether that is nothing."""
        stored = None if self.asset_state_store is None else await self.asset_state_store.aget(STATE_KEY)
        self._known = {name: _text(digest) for name, digest in stored.items()} if isinstance(stored, dict) else None
        return self._known is None

    def _payload(self, changes: Sequence[Any], *, is_first: bool) -> dict[str, Any]:
        listed = [
            {"name": change.name, "digest": change.after, "previous_digest": change.before}
            for change in changes[:MAX_EVENT_CHANGES]
        ]
        return {
            "url": self.url,
            "upstream_name": self.upstream_name,
            "is_first": is_first,
            "changes": listed,
            "change_count": len(changes),
        }


def _text(stored: object) -> str | None:
    return stored if isinstance(stored, str) else None


#: The running triggers of each loop; the triggerer runs them and the loop in one event loop.
_WATCHING: dict[Hashable, dict[int, WatchedTagsTrigger]] = {}


class TagLoop(SharedStreamProducer):
    """The loop of all triggers with the same :meth:`WatchedTagsTrigger.shared_stream_key`.

    Requests are sent in a thread. A registry that does not respond, and a connection that cannot be used, are reported
    and tried again.
    """

    def __init__(self, one: WatchedTagsTrigger) -> None:
        self._key = one.shared_stream_key()
        self._one = one
        self._client: RegistryClient | None = None
        self._watch: TagWatch | None = None
        self._opened_at = 0.0

    async def open_stream(self) -> AsyncIterator[tuple[Turn, int]]:
        """Turns with their numbers; those that saw nothing are left out."""
        number = 0
        while True:
            watching = list(_WATCHING.get(self._key, {}).values())
            if not watching:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            began, pause = time.monotonic(), self._one.poll_seconds
            try:
                watch = await self._opened()
                seen = await asyncio.to_thread(watch.turn, _by_repository(watching))
            except RegistrySyncError as problem:
                log.warning("%s is not watched: %s: %s", self._one.url, type(problem).__name__, problem)
                seen, pause = {}, max(pause, _PAUSE_SECONDS)
                self._close()
            if seen:
                number += 1
                yield Turn(number, seen), number
            await asyncio.sleep(max(0.0, began + pause - time.monotonic()))

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Records what was seen, as Airflow has stored the events of ``batch``, all of them."""
        if any(item.outcome.failed for item in batch):
            return  # the failed trigger starts again from what was recorded before
        await self.save(batch[-1].broker_payload)

    async def save(self, number: int) -> None:
        """Records what was seen up to turn ``number``."""
        for trigger in list(_WATCHING.get(self._key, {}).values()):
            await trigger.save(number)

    async def aclose(self) -> None:
        """Closes the connections."""
        self._close()

    async def _opened(self) -> TagWatch:
        """The watch with its client; a new one when that is old, which knows again what the triggers know."""
        if self._watch is not None and time.monotonic() - self._opened_at < _CLIENT_SECONDS:
            return self._watch
        from registry_sync.domain.remote import RemoteSpec
        from registry_sync.hooks.clients import load_connection_async, make_client

        self._close()
        connection, masking = await load_connection_async(self._one.conn_id), _mask_from_thread()
        remote = RemoteSpec.parse("watched", self._one.url, self._one.upstream_name, conn_id=self._one.conn_id)
        self._client = await asyncio.to_thread(make_client, connection, remote, on_secret=masking)
        per_turn = max(1, round(self._one.requests_per_minute * self._one.poll_seconds / 60))
        if self._watch is None:
            self._watch = TagWatch(self._client, requests_per_turn=per_turn, report=log.warning)
        else:
            self._watch.use(self._client)
        self._opened_at = time.monotonic()
        return self._watch

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        self._opened_at = float("-inf")


def _by_repository(watching: Sequence[WatchedTagsTrigger]) -> dict[RepositoryName, list[WatchedTags]]:
    found: dict[RepositoryName, list[WatchedTags]] = {}
    for trigger in watching:
        found.setdefault(RepositoryName(trigger.upstream_name), []).append(trigger.watched)
    return found


def _mask_from_thread() -> Any:
    """Registers a secret with Airflow's masker, from a thread: its own call would wait for the event loop's thread."""
    from airflow.sdk.log import amask_secret

    event_loop = asyncio.get_running_loop()

    def mask(secret: str) -> None:
        asyncio.run_coroutine_threadsafe(amask_secret(secret), event_loop)

    return mask
