"""The watcher of tags in Airflow's own shared streams: its events, what it records and when, and its requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.serialization.serialized_objects import BaseSerialization
from airflow.triggers.base import TriggerEvent
from airflow.triggers.shared_stream import SharedStreamManager

from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.triggers import watched_tags
from registry_sync.triggers.watched_tags import STATE_KEY, WatchedTagsTrigger, watch_tags
from support.hostile_registry import HostileRegistry
from support.images import ContentBuilder, RepositoryContent
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry, refusal

APP = "team/app"


def content(*names: str, image: str = "a") -> RepositoryContent:
    build = ContentBuilder(seed=7)
    digests = {text: build.image([build.blob(10)]) for text in ("a", "b", "c")}
    for name in names:
        build.tag(name, digests[image])
    return build.content()


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.serve(APP, content("latest", "1.0", "1.1"))
    return registry


@pytest.fixture
def server(registry: MemoryRegistry) -> Iterator[HostileRegistry]:
    with over_http(registry) as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once."""
    monkeypatch.setattr(watched_tags, "_SHORTEST_POLL_SECONDS", 0.0)
    monkeypatch.setattr(watched_tags, "_IDLE_SECONDS", 0.0)


class StateStore:
    """The asset state store of one asset; ``is_down`` refuses to write."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.is_down = False

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        if self.is_down:
            raise RuntimeError("the API server does not respond")
        self.values[key] = json.loads(json.dumps(value))


class Triggerer:
    """Runs triggers as Airflow's does. ``stores_events`` False is a triggerer that dies before it stores any."""

    def __init__(self, *, stores_events: bool = True) -> None:
        self.manager = SharedStreamManager()
        self.events: dict[str, list[dict[str, Any]]] = {}
        self._stores_events = stores_events
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, asset: Asset, store: StateStore) -> WatchedTagsTrigger:
        (watcher,) = asset.watchers
        _, arguments = watcher.trigger.serialize()
        trigger = WatchedTagsTrigger(**json.loads(json.dumps(arguments)))
        trigger.asset_state_store = store  # type: ignore[assignment]
        self.events[asset.name] = []
        self._tasks.append(asyncio.create_task(self._run(len(self._tasks), trigger, self.events[asset.name])))
        return trigger

    async def _run(self, number: int, trigger: WatchedTagsTrigger, events: list[dict[str, Any]]) -> None:
        key = trigger.shared_stream_key()
        stream = self.manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                seq = self.manager.bind_pending_event(trigger_id=number, key=key)
                BaseSerialization.serialize(
                    event.payload, strict=True
                )  # as Airflow does; it takes no subclasses of str
                events.append(event.payload)
                if self._stores_events and seq is not None:
                    asyncio.get_running_loop().call_soon(self.manager.confirm_persisted, [seq])
        finally:
            await self.manager.unsubscribe(number, key)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.manager.stop_all()


@asynccontextmanager
async def triggerer(**options: Any) -> AsyncIterator[Triggerer]:
    running = Triggerer(**options)
    try:
        yield running
    finally:
        await running.stop()


async def until(condition: Callable[[], Any]) -> None:
    async def hold() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(hold(), 30)


def latest(server: HostileRegistry, tags: Any = "latest", **options: Any) -> Asset:
    options = {"poll_seconds": 0.02, "requests_per_minute": 1_000_000, **options}
    return watch_tags(server.base, APP, tags, **options)


# -- events and state ---------------------------------------------------------------------------------------------


def test_a_moved_tag_is_an_event_and_the_first_look_is_one(registry: MemoryRegistry, server: HostileRegistry) -> None:
    asset, store = latest(server), StateStore()
    before = content("latest").tags["latest"]
    after = content("latest", image="b").tags["latest"]

    async def check() -> list[dict[str, Any]]:
        async with triggerer() as running:
            running.run(asset, store)
            events = running.events[asset.name]
            await until(lambda: store.values.get(STATE_KEY) == {"latest": before})
            registry.add(APP, content("latest", image="b"))
            await until(lambda: store.values.get(STATE_KEY) == {"latest": after})
            return events

    first, moved = asyncio.run(check())
    assert {type(value) for change in moved["changes"] for pair in change.items() for value in pair} == {str}
    assert (first["is_first"], first["change_count"]) == (True, 0)
    assert moved == {
        "url": server.base,
        "upstream_name": APP,
        "is_first": False,
        "changes": [{"name": "latest", "digest": after, "previous_digest": before}],
        "change_count": 1,
    }


def test_a_move_while_nobody_watched_is_an_event_and_nothing_else_is(
    registry: MemoryRegistry, server: HostileRegistry
) -> None:
    """What was seen is known to the next triggerer, so that it reports neither a first look nor an old move."""
    asset, store = latest(server, ["latest", "1.0"]), StateStore()
    store.values[STATE_KEY] = {name: content(name).tags[name] for name in ("latest", "1.0")}
    registry.add(APP, content("1.0", image="b"))

    async def check() -> list[dict[str, Any]]:
        async with triggerer() as running:
            running.run(asset, store)
            await until(lambda: store.values[STATE_KEY]["1.0"] == content("1.0", image="b").tags["1.0"])
            asked = len(server.requests)
            await until(lambda: len(server.requests) > asked + 4)
            return running.events[asset.name]

    (event,) = asyncio.run(check())
    assert ([change["name"] for change in event["changes"]], event["is_first"]) == (["1.0"], False)


def test_a_move_is_recorded_only_when_its_event_is_stored(registry: MemoryRegistry, server: HostileRegistry) -> None:
    """A triggerer that dies in between reports it again, and so does one whose API server was down."""
    asset, store = latest(server), StateStore()
    store.values[STATE_KEY] = {"latest": content("latest").tags["latest"]}
    moved = content("latest", image="b")
    registry.add(APP, moved)

    async def events_of(*, until_saved: bool, **options: Any) -> int:
        async with triggerer(**options) as running:
            running.run(asset, store)
            await until(lambda: running.events[asset.name])
            asked = len(server.requests)
            await until(lambda: len(server.requests) > asked + 4)
            if until_saved:
                await until(lambda: store.values[STATE_KEY] == {"latest": moved.tags["latest"]})
            return len(running.events[asset.name])

    assert asyncio.run(events_of(until_saved=False, stores_events=False)) == 1
    assert store.values[STATE_KEY] == {"latest": content("latest").tags["latest"]}
    store.is_down = True
    assert asyncio.run(events_of(until_saved=False)) == 1
    store.is_down = False
    assert asyncio.run(events_of(until_saved=True)) == 1


def test_many_watchers_of_a_registry_share_one_loop(registry: MemoryRegistry, server: HostileRegistry) -> None:
    """Each has its own events; a tag that several watch is requested once in a turn."""
    registry.serve("team/other", content("latest"))
    watching = [latest(server, "latest"), latest(server, ["latest", "1.0"]), latest(server, "1.*")]
    watching.append(watch_tags(server.base, "team/other", "latest", poll_seconds=0.02, requests_per_minute=1_000_000))
    stores = [StateStore() for _ in watching]

    async def check() -> dict[str, list[dict[str, Any]]]:
        async with triggerer() as running:
            for asset, store in zip(watching, stores, strict=True):
                running.run(asset, store)
            await until(lambda: all(STATE_KEY in store.values for store in stores))
            assert len(running.manager._groups) == 1
            registry.reset_counts()
            registry.add(APP, content("1.0", image="b"))
            await until(lambda: sum(len(events) for events in running.events.values()) == 6)
            return running.events

    events = asyncio.run(check())
    changed = [[c["name"] for event in events[asset.name] for c in event["changes"]] for asset in watching]
    assert changed == [[], ["1.0"], ["1.0"], []]
    log = registry.log()
    heads = {(r.repository, r.reference): log.count("HEAD", "manifest", repository=r.repository, reference=r.reference)
             for r in log.select("HEAD", "manifest")}  # fmt: skip
    assert max(heads.values()) - min(heads.values()) <= 1, heads


def test_a_registry_that_is_down_and_a_connection_that_is_missing_are_no_end(
    registry: MemoryRegistry,
    server: HostileRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watched_tags, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("registry_sync.sync.watch_tags.FIRST_PAUSE_SECONDS", 0.01)
    for method in ("HEAD", "GET"):
        registry.on(method, "manifest", "latest", refusal(403))
    asset = latest(server, conn_id="hub")

    async def check() -> list[dict[str, Any]]:
        async with triggerer() as running:
            running.run(asset, StateStore())
            await until(lambda: "there is no Airflow connection 'hub'" in caplog.text)
            monkeypatch.setenv("AIRFLOW_CONN_HUB", json.dumps({"conn_type": "registry", "host": server.base}))
            await until(lambda: "tags of team/app are looked at again" in caplog.text)
            registry.forget("manifest")
            await until(lambda: running.events[asset.name])
            return running.events[asset.name]

    assert asyncio.run(check())[0]["is_first"]


def test_it_runs_alone_where_there_is_no_shared_stream(registry: MemoryRegistry, server: HostileRegistry) -> None:
    store = StateStore()
    (watcher,) = latest(server).watchers
    watcher.trigger.asset_state_store = store

    async def first() -> TriggerEvent:
        stream = watcher.trigger.run()
        event = await stream.__anext__()
        await asyncio.wait_for(_next_turn(stream), 30)
        return event

    async def _next_turn(stream: Any) -> None:
        waiting = asyncio.ensure_future(stream.__anext__())
        await until(lambda: STATE_KEY in store.values)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.aclose()

    assert asyncio.run(first()).payload["is_first"]


# -- what the code of a DAG says ----------------------------------------------------------------------------------


def test_assets_that_watch_other_tags_are_other_assets() -> None:
    hub = "https://registry-1.docker.io"
    names = [
        watch_tags(hub, "alpine").name,
        watch_tags(hub, "library/alpine", "latest, 3.*").name,
        watch_tags(hub, "library/alpine", ["latest", "3.*"], exclude_tags="*_rc*").name,
    ]
    assert names == [
        "registry_sync_upstream/registry-1.docker.io/library/alpine",
        "registry_sync_upstream/registry-1.docker.io/library/alpine:latest,3.*",
        "registry_sync_upstream/registry-1.docker.io/library/alpine:latest,3.*,!*_rc*",
    ]
    many = watch_tags(hub, "alpine", [f"build-{number}" for number in range(500)])
    assert "alpine:500-entries-" in many.name
    assert len(many.name) < 200
    assert many.watchers[0].trigger.asset == many.name


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"url": "ftp://registry"}, InvalidReference, "registry"),
        ({"upstream_name": "No Name"}, InvalidReference, "No Name"),
        ({"tags": ["a b"]}, InvalidReference, "a b"),
        ({"poll_seconds": -1}, ConfigurationError, "poll_seconds is -1; give a number from 1 to 86400"),
        ({"requests_per_minute": 0}, ConfigurationError, "requests_per_minute is 0; give 1 or more"),
    ],
)
def test_what_cannot_be_watched_is_refused_when_the_dag_is_parsed(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        watch_tags(**{"url": "https://quay.io", "upstream_name": "a/b", **arguments})
