"""HEADs beside the list of tags: as many as without, and a listing that says what it would have said without."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.registry_pace import RegistryPace
from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from registry_sync.sync.early_heads import begin_early
from registry_sync.sync.list_tags import TagsListed, list_tags
from registry_sync.sync.open_run import SyncRequest, open_run
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply
from support.images import ContentBuilder
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.syncing import Installation

NAME = "team/app"
TAG_COUNT = 30
TAGS = sorted(f"v{number}" for number in range(TAG_COUNT))
BASIC = {"scheme": "basic", "sent_by": "http://127.0.0.1:1/v2/", "has_basic_too": False}
EITHER = {**BASIC, "scheme": "bearer", "realm": "http://127.0.0.1:1/token", "has_basic_too": True}
PATIENCE_SECONDS = 5.0


@dataclass
class Upstream:
    """A registry, and what it does: the list waits until ``awaited`` says so of the HEADs; ``head`` may respond to one.

    ``early`` are the tags of the HEADs that came before the last list, ``heads`` those of all since the first sync.
    """

    memory: MemoryRegistry
    awaited: Callable[[list[str]], bool] = lambda _heads: True
    refuse: Callable[[Request], Raw | None] = lambda _request: None
    head: Callable[[str], Raw | None] = lambda _tag: None
    around_list: Callable[[Callable[[], Raw]], Raw] = lambda respond: respond()
    has_listed: bool = False
    heads: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    server: HostileRegistry = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.server = over_http(self.memory, self._respond)

    def _respond(self, request: Request, respond: Callable[[], Raw]) -> Raw:
        refusal = self.refuse(request)
        if refusal is not None:
            return refusal
        if request.path.endswith("/tags/list"):
            until = time.monotonic() + PATIENCE_SECONDS
            while not self.awaited(self.heads) and time.monotonic() < until:
                time.sleep(0.01)
            response = self.around_list(respond)
            with self._lock:
                self.early, self.has_listed = list(self.heads), True
            return response
        if request.method != "HEAD":
            return respond()
        tag = request.path.rpartition("/")[2]
        with self._lock:
            self.heads.append(tag)
        return self.head(tag) or respond()

    def place(self, **images: int) -> None:
        """Has these tags, and no others, on images by number."""
        build = ContentBuilder(seed=71)
        made = [build.image([build.blob(50 + number)]) for number in range(3)]
        for tag, number in images.items():
            build.tag(tag, made[number])
        self.memory.serve(NAME, build.content())


@dataclass
class Mirror:
    """A mirror of the upstream that was synced once, from far away as it seems."""

    here: Installation
    upstream: Upstream
    challenge: dict[str, Any] = field(default_factory=dict)
    pace: RegistryPace = field(
        default_factory=lambda: RegistryPace(40, utc_now(), {"HEAD manifests": 0.08}, lists_digests=False)
    )

    def run(self, run_id: str, **said: Any) -> SyncRun:
        request = SyncRequest(repository="app", url=self.upstream.server.base, upstream_name=NAME, **said)
        return open_run(self.here.database, RunKey("registry_sync", run_id), request)

    def sync(self, **said: Any) -> None:
        """A whole sync, which leaves a pace to the next one."""
        assert self.here.sync("app", self.upstream.server.base, NAME, run_id="first", **said) is not None
        run = self.here.database.runs.by_key(RunKey("registry_sync", "first"))
        self.here.database.runs.add_usage(run.id, replace(run.usage, head_count=TAG_COUNT))
        self.here.database.runs.record_learned(run.id, self.challenge, self.pace)
        self.upstream.heads.clear()
        self.upstream.has_listed = False

    def list(self, run_id: str = "second", *, expects_early: bool = True, **options: Any) -> TagsListed:
        """The listing of the next sync, as its task makes it; ``usage`` is that of its client."""
        run = self.run(run_id)
        chosen = ClientOptions(max_attempts=2, longest_wait_seconds=0.2, **options)
        with RegistryClient(run.remote.url, None, chosen) as client:
            client.begin_with(run.challenge)
            client.begin_at(run.pace)
            early = begin_early(client, self.here.database, run, run.remote)
            assert (early is not None) is expects_early
            try:
                return list_tags(
                    client, self.here.database, run, run.remote, max_shards=1, report=self.here.lines, early=early
                )
            finally:
                self.usage = client.usage


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with MemoryRegistry() as memory:
        found = Upstream(memory)
        found.place(**dict.fromkeys(TAGS, 0))
        with found.server:
            yield found


@pytest.fixture
def mirror(upstream: Upstream, tmp_path: Path) -> Iterator[Mirror]:
    here = Installation.embedded(tmp_path)
    yield Mirror(here, upstream)
    here.database.close()


def test_the_tags_of_the_latest_version_are_requested_while_the_list_is_on_its_way(mirror, upstream) -> None:
    mirror.sync()
    upstream.awaited = lambda heads: len(heads) == TAG_COUNT
    listed = mirror.list()
    assert listed.is_unchanged
    assert sorted(upstream.early) == TAGS
    assert sorted(upstream.heads) == TAGS, "each once"
    assert mirror.usage.counts().head_count == TAG_COUNT
    assert mirror.usage.statuses[200] == TAG_COUNT + 1


def test_the_list_decides_which_tags_there_are(mirror, upstream) -> None:
    mirror.sync()
    upstream.awaited = lambda heads: len(heads) == TAG_COUNT
    before = list(TAGS)

    def change_first(respond: Callable[[], Raw]) -> Raw:
        """After the HEADs."""
        upstream.place(**dict.fromkeys(before[1:], 0), new=1)
        return respond()

    upstream.around_list = change_first
    listed = mirror.list()
    assert (listed.selected_count, listed.changed_count, listed.removed_count) == (TAG_COUNT, 1, 1)
    assert upstream.heads[TAG_COUNT:] == ["new"]


def test_a_tag_that_was_missing_before_the_list_and_is_in_it_is_requested_again(mirror, upstream) -> None:
    mirror.sync()
    upstream.head = lambda tag: None if upstream.has_listed or tag != TAGS[7] else errors_reply(404, "MANIFEST_UNKNOWN")
    upstream.awaited = lambda heads: TAGS[7] in heads
    listed = mirror.list()
    assert listed.is_unchanged, "nothing is removed"
    assert upstream.heads.count(TAGS[7]) == 2
    assert len(upstream.heads) == TAG_COUNT + 1
    assert mirror.usage.counts().head_count == TAG_COUNT + 1, "as many as were sent"
    assert mirror.usage.statuses[404] == 1


def test_a_tag_that_is_gone_before_the_list_costs_the_request_that_found_out(mirror, upstream) -> None:
    mirror.sync()
    upstream.place(**dict.fromkeys(TAGS[1:], 0))
    listed = mirror.list()
    assert (listed.selected_count, listed.removed_count) == (TAG_COUNT - 1, 1)
    assert sorted(upstream.heads) == TAGS


def test_a_tag_that_moved_is_new(mirror, upstream) -> None:
    mirror.sync()
    upstream.place(**dict.fromkeys(TAGS[1:], 0), **{TAGS[0]: 2})
    listed = mirror.list()
    assert (listed.selected_count, listed.changed_count, listed.removed_count) == (TAG_COUNT, 1, 0)


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_refusal_is_gone_on_from_and_no_tag_is_lost(mirror, upstream, status: int) -> None:
    mirror.sync()
    refused: list[str] = []

    def refuse_one(tag: str) -> Raw | None:
        if tag == TAGS[3] and not refused:
            refused.append(tag)
            return errors_reply(status, "TOOMANYREQUESTS")
        return None

    upstream.head = refuse_one
    assert mirror.list().is_unchanged
    assert len(upstream.heads) == TAG_COUNT + 1, "only what was refused was sent twice"


def test_a_registry_that_asks_for_tokens_meanwhile_gets_them(mirror, upstream) -> None:
    mirror.sync()
    upstream.server.on("GET", "/token", json_reply({"token": "good"}))
    said = f'Bearer realm="{upstream.server.base}/token",service="s"'
    asks = errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", said)])
    upstream.refuse = lambda request: (
        None if request.path == "/token" or request.header("authorization") == "Bearer good" else asks
    )
    assert mirror.list(allow_insecure_credentials=True).is_unchanged
    assert sorted(upstream.heads) == TAGS


def test_a_list_that_fails_fails_the_listing_and_leaves_no_thread(mirror, upstream) -> None:
    mirror.sync()
    upstream.around_list = lambda _respond: errors_reply(500, "UNKNOWN")
    with pytest.raises(RegistrySyncError):
        mirror.list()
    assert not [thread for thread in threading.enumerate() if thread.name == "early-heads"]
    upstream.around_list = lambda respond: respond()
    assert mirror.list(expects_early=False).is_unchanged, "the next try, which has sent as many HEADs as it counted"


def test_what_an_earlier_try_has_left_is_not_requested_early(mirror, upstream) -> None:
    mirror.sync()
    run = mirror.run("second")
    digests = mirror.here.database.versions.tags(run.repository_id)
    kept = {TagName(tag): digests[TagName(tag)] for tag in TAGS[:5]}
    mirror.here.database.heads.keep(run.id, kept, utc_now(), listing_began=run.listing_began)
    mirror.here.database.runs.add_usage(run.id, replace(run.usage, head_count=TAG_COUNT))
    mirror.here.database.runs.record_learned(run.id, {}, mirror.pace)
    assert mirror.list().is_unchanged
    assert sorted(upstream.heads) == TAGS[5:]
    assert upstream.early == []


@pytest.mark.parametrize(
    ("pace", "challenge", "options"),
    [
        ({"lists_digests": True}, {}, {}),
        ({"usual_seconds": {"HEAD manifests": 0.001}}, {}, {}),
        ({"at_once": 0}, {}, {}),
        ({}, BASIC, {}),
        ({}, EITHER, {"allow_insecure_credentials": True}),
        ({}, None, {}),
        ({}, {}, {"requests_per_second": 500.0}),
        ({}, {}, {"rate_limit_floor": 1}),
    ],
)
def test_none_is_requested_early_where_it_may_be_needless_or_would_carry_a_password(
    mirror, upstream, pace: dict[str, Any], challenge: Any, options: dict[str, Any]
) -> None:
    mirror.pace, mirror.challenge = replace(mirror.pace, **pace), challenge
    mirror.sync()
    assert mirror.list(expects_early=False, **options).is_unchanged
    assert sorted(upstream.heads) == TAGS
    assert upstream.early == []


def test_none_in_a_first_sync_nor_where_deleted_tags_are_kept_nor_without_a_list(mirror, upstream) -> None:
    for said in ({"mode": SyncMode.ADDITIVE.value}, {"include_tags": TAGS}):
        run = mirror.run(f"{said}", **said)
        run = replace(run, pace=replace(mirror.pace, head_count=100))
        with RegistryClient(run.remote.url) as client:
            client.begin_with({})
            client.begin_at(run.pace)
            assert begin_early(client, mirror.here.database, run, run.remote) is None
