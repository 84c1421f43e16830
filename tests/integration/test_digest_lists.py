"""Syncs from registries that list digests: what has not moved costs no request, and the result is that of HEADs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from registry_sync.db.tables import sync_runs
from registry_sync.domain.digests import Digest
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import Confirmation, DigestListUse
from registry_sync.oci.client import RegistryReader
from registry_sync.sync.digest_hints import must_confirm
from registry_sync.sync.open_run import SyncRequest
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import (
    NO_RESPONSE,
    MemoryRegistry,
    MemoryResponse,
    digest_page,
    document,
    refusal,
    tag_page,
)
from support.shapes import every_kind
from support.syncing import Installation, new_client

pytestmark = pytest.mark.rule("A7.13", "A7.14")
NAME = "team/app"
TAGS = 60
SAMPLE = 3
PAGES = 2


def tagged(count: int = TAGS, *, salt: int = 0, moved: int = 0) -> RepositoryContent:
    """So many tags on ten images; the first ``moved`` of them on others."""
    build = ContentBuilder(seed=41)
    images = [build.image([build.blob(10)]) for _ in range(10)]
    others = ContentBuilder(seed=90 + salt)
    new = [others.image([others.blob(11)]) for _ in range(2)]
    for number in range(count):
        if number >= moved:
            build.tag(f"v{number:03}", images[number % 10])
        else:
            others.tag(f"v{number:03}", new[number % 2])
    first, second = build.content(), others.content()
    return RepositoryContent(
        {**first.tags, **second.tags}, {**first.manifests, **second.manifests}, {**first.blobs, **second.blobs}
    )


Kind = Callable[[], MemoryRegistry]
KINDS: dict[str, Kind] = {
    "in the list of tags": lambda: MemoryRegistry(lists_digests=True),
    "by an API": lambda: MemoryRegistry(has_digest_api=True, digest_page_size=TAGS // PAGES),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def registry(request: pytest.FixtureRequest) -> MemoryRegistry:
    kind: Kind = request.param
    return kind()


@pytest.fixture
def by_api() -> MemoryRegistry:
    return MemoryRegistry(has_digest_api=True, digest_page_size=TAGS // PAGES)


def synced(here: Installation, registry: MemoryRegistry, content: RepositoryContent, **request: Any) -> None:
    """Has synced ``content``, each tag by a HEAD; what was requested for it is forgotten."""
    registry.serve(NAME, content)
    assert here.sync("app", registry.url, NAME, **request) is not None
    assert registry.log().manifest_head_count == len(content.tags)
    registry.reset_counts()
    here.lines.clear()


def assert_equals(here: Installation, content: RepositoryContent) -> None:
    repository = here.database.repositories.by_name("app")
    assert here.database.versions.tags(repository.id) == content.tags


def heads(registry: MemoryRegistry) -> list[str]:
    """The tags that were requested since the last call."""
    found = [request.reference for request in registry.log().select("HEAD", "manifest")]
    registry.reset_counts()
    return found


def recorded(here: Installation) -> tuple[DigestListUse | None, int, str | None]:
    """What the last sync found of the list."""
    with here.database.reading() as connection:
        statement = sync_runs.select().order_by(sync_runs.c.started_at.desc()).limit(1)
        row = connection.execute(statement).one()
    use = None if row.digest_list is None else DigestListUse(row.digest_list)
    return use, row.listed_digest_count, row.digest_list_problem


def age(here: Installation, by: timedelta) -> None:
    """Lets all syncs so far be earlier."""
    with here.database.writing() as connection:
        for row in connection.execute(sync_runs.select()).all():
            times = {"started_at": row.started_at - by, "listed_at": row.listed_at and row.listed_at - by}
            connection.execute(update(sync_runs).where(sync_runs.c.id == row.id).values(**times))


def test_an_unchanged_mirror_costs_a_few_requests(here: Installation, registry: MemoryRegistry) -> None:
    synced(here, registry, tagged())
    assert here.sync("app", registry.url, NAME) is None
    log = registry.log()
    expected = 1 + SAMPLE + (PAGES if registry.has_digest_api else 0)
    assert (log.count(), log.manifest_head_count, log.manifest_get_count) == (expected, SAMPLE, 0)
    assert recorded(here) == (DigestListUse.USED, TAGS - SAMPLE, None)
    assert "57 tags of 60 unchanged by the registry's list of digests" in here.lines
    assert here.lines.warnings == []


def test_a_first_sync_asks_for_no_list(here: Installation, by_api: MemoryRegistry) -> None:
    synced(here, by_api, tagged(20))
    assert by_api.log().count(kind="digests") == 0


def test_tags_that_moved_are_new_and_are_gone_are_found_by_requests_for_these(
    here: Installation, registry: MemoryRegistry
) -> None:
    synced(here, registry, tagged())
    after = tagged(TAGS + 3, moved=7)
    for gone in ("v040", "v050"):
        del after.tags[gone]
    registry.serve(NAME, after)
    assert here.sync("app", registry.url, NAME) is not None
    asked = heads(registry)
    assert len(asked) == len(set(asked)) == 7 + 3 + SAMPLE
    assert {*(f"v{number:03}" for number in range(7)), "v060", "v061", "v062"} <= set(asked)
    assert_equals(here, after)


def test_the_next_tags_that_are_checked_are_those_that_moved_last(here: Installation, registry: MemoryRegistry) -> None:
    synced(here, registry, tagged())
    registry.serve(NAME, tagged(moved=2))
    here.sync("app", registry.url, NAME)
    heads(registry)
    here.sync("app", registry.url, NAME)
    assert {"v000", "v001"} <= set(heads(registry))


def test_a_tag_that_the_list_has_and_the_list_of_tags_lacks_is_not_added(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = tagged()
    synced(here, registry, content)
    registry.freeze_digests()
    registry.delete_tag(NAME, "v007")
    assert here.sync("app", registry.url, NAME) is not None
    del content.tags["v007"]
    assert_equals(here, content)
    assert "v007" not in heads(registry)


def test_a_list_without_a_tag_removes_nothing(here: Installation, by_api: MemoryRegistry) -> None:
    content = tagged()
    synced(here, by_api, content)
    known = {tag: digest for tag, digest in content.tags.items() if tag > "v009"}
    by_api.on("GET", "digests", "", digest_page(known))
    assert here.sync("app", by_api.url, NAME) is None
    asked = heads(by_api)
    assert {f"v{number:03}" for number in range(10)} <= set(asked)
    assert len(asked) == 10 + SAMPLE


FAILURES: dict[str, tuple[MemoryResponse, DigestListUse]] = {
    "401": (refusal(401, "UNAUTHORIZED", has_challenge=True), DigestListUse.REFUSED),
    "403": (refusal(403, "DENIED"), DigestListUse.REFUSED),
    "404": (refusal(404), DigestListUse.REFUSED),
    "web page": (document("<html><title>Sign in</title></html>", "text/html"), DigestListUse.REFUSED),
    "odd": (document('{"tags": 7}', "application/json"), DigestListUse.REFUSED),
    "429": (refusal(429, retry_after_seconds=60), DigestListUse.FAILED),
    "503": (refusal(503), DigestListUse.FAILED),
    "broken": (NO_RESPONSE, DigestListUse.FAILED),
}


@pytest.mark.parametrize(("page", "use"), FAILURES.values(), ids=FAILURES.keys())
def test_without_a_list_each_tag_is_requested_and_one_line_says_why(
    here: Installation, by_api: MemoryRegistry, page: MemoryResponse, use: DigestListUse
) -> None:
    content = tagged()
    synced(here, by_api, content)
    by_api.on("GET", "digests", "", page)
    assert here.sync("app", by_api.url, NAME) is None
    assert sorted(heads(by_api)) == sorted(content.tags)
    assert recorded(here)[:2] == (use, 0)
    (line,) = (line for line in here.lines if "each tag is requested" in line)
    assert "the registry gives no list of digests: " in line
    here.lines.clear()
    here.sync("app", by_api.url, NAME)
    is_remembered = use is DigestListUse.REFUSED
    assert by_api.log().count(kind="digests") == (0 if is_remembered else 1 + (page.status != 429))
    (line,) = (line for line in here.lines if "each tag is requested" in line)
    assert ("is tried again after" in line) is is_remembered


def test_a_refusal_is_remembered_for_a_day_and_not_by_a_remote_with_other_credentials(
    here: Installation, by_api: MemoryRegistry
) -> None:
    synced(here, by_api, tagged())
    by_api.on("GET", "digests", "", refusal(403))
    for count in (1, 0, 0):
        by_api.reset_counts()
        here.sync("app", by_api.url, NAME)
        assert by_api.log().count(kind="digests") == count
    by_api.reset_counts()
    here.sync("app", by_api.url, NAME, conn_id="another")
    assert by_api.log().count(kind="digests") == 1
    age(here, timedelta(days=1))
    by_api.reset_counts()
    here.sync("app", by_api.url, NAME)
    assert by_api.log().count(kind="digests") == 1


def test_a_page_that_fails_leaves_the_tags_of_the_pages_before_alone(
    here: Installation, by_api: MemoryRegistry
) -> None:
    content = tagged()
    synced(here, by_api, content)
    pages = [digest_page({f"v{n:03}": content.tags[f"v{n:03}"] for n in range(20)}, has_more=True), refusal(500)]
    by_api.on("GET", "digests", "", *pages)
    assert here.sync("app", by_api.url, NAME) is None
    asked = heads(by_api)
    assert len(asked) == 40 + SAMPLE
    use, count, problem = recorded(here)
    assert (use, count) == (DigestListUse.USED, 20 - SAMPLE)
    assert "responds 500" in (problem or "")
    assert any("which ended early" in line for line in here.lines)


# -- lists that are out of date -----------------------------------------------------------------------------------


def test_a_frozen_list_is_found_by_a_tag_that_is_checked_and_is_not_used_for_a_day(
    here: Installation, registry: MemoryRegistry
) -> None:
    synced(here, registry, tagged())
    registry.freeze_digests()
    after = tagged(moved=TAGS)
    registry.serve(NAME, after)
    assert here.sync("app", registry.url, NAME) is not None
    assert sorted(heads(registry)) == sorted(after.tags), "each once"
    assert_equals(here, after)
    use, count, problem = recorded(here)
    assert (use, count) == (DigestListUse.STALE, 0)
    assert "has moved and the list does not show it" in (problem or "")
    assert [line for line in here.lines.warnings if "out of date" in line]
    registry.thaw_digests()
    assert here.sync("app", registry.url, NAME) is None
    assert sorted(heads(registry)) == sorted(after.tags), "not even a good one"
    age(here, timedelta(days=1, minutes=1))
    assert here.sync("app", registry.url, NAME) is None
    assert len(heads(registry)) == SAMPLE


def test_a_move_that_a_frozen_list_hides_is_found_when_all_tags_are_requested(
    here: Installation, by_api: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst case: one tag of many moves, and is never among those that are checked."""
    monkeypatch.setattr("random.sample", lambda population, count: list(population)[-count:])
    synced(here, by_api, tagged(20))
    by_api.freeze_digests()
    after = tagged(20, moved=1)
    by_api.serve(NAME, after)
    sync_count = 0
    while here.sync("app", by_api.url, NAME) is None:
        sync_count += 1
        assert len(heads(by_api)) == SAMPLE
        age(here, timedelta(hours=5))
    assert sync_count == 6
    assert_equals(here, after)


def test_a_tag_that_moves_between_the_list_and_its_check_is_no_reason_for_distrust(
    here: Installation, registry: MemoryRegistry
) -> None:
    synced(here, registry, tagged())
    after = tagged(moved=TAGS)

    def moves(name: str) -> MemoryResponse:
        """The response to the first HEAD: everything has moved just now."""
        registry.serve(NAME, after)
        return MemoryResponse(digest=after.tags[name])

    for name in after.tags:
        registry.on("HEAD", "manifest", name, partial(moves, name))
    assert here.sync("app", registry.url, NAME) is not None
    assert_equals(here, after)
    assert recorded(here)[0] is DigestListUse.USED
    assert here.lines.warnings == []


def test_a_list_ahead_of_the_registry_changes_nothing(here: Installation, registry: MemoryRegistry) -> None:
    before, after = tagged(), tagged(moved=3)
    synced(here, registry, before)
    registry.serve(NAME, after)
    registry.freeze_digests()
    registry.serve(NAME, before)
    assert here.sync("app", registry.url, NAME) is None
    assert {"v000", "v001", "v002"} <= set(heads(registry))
    assert_equals(here, before)


def test_a_list_from_before_the_last_sync_is_not_used(here: Installation, by_api: MemoryRegistry) -> None:
    content = tagged()
    synced(here, by_api, content)

    class Aged:
        """A reader whose list a cache has kept."""

        def __init__(self, client: Any) -> None:
            self._client = client

        def __enter__(self) -> Aged:
            return self

        def __exit__(self, *reason: object) -> None: ...

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def list_tag_digests(self, *arguments: Any, **named: Any) -> Any:
            listed = self._client.list_tag_digests(*arguments, **named)
            return replace(listed, as_of=listed.as_of - timedelta(hours=1))

    def aged(remote: RemoteSpec) -> AbstractContextManager[RegistryReader]:
        return Aged(new_client(remote))  # type: ignore[return-value]

    assert here.sync("app", by_api.url, NAME, client=aged) is None
    assert sorted(heads(by_api)) == sorted(content.tags)
    assert recorded(here) == (DigestListUse.FAILED, 0, "the registry's list of digests is older than the last sync")


def test_a_registry_whose_heads_tell_no_digests_is_not_believed(here: Installation, by_api: MemoryRegistry) -> None:
    content = tagged()
    synced(here, by_api, content)
    by_api.tells_digests = False
    assert here.sync("app", by_api.url, NAME) is None
    assert sorted(heads(by_api)) == sorted(content.tags)
    assert recorded(here)[0] is DigestListUse.FAILED


# -- when all tags are requested ----------------------------------------------------------------------------------

NOW = datetime.fromisoformat("2026-11-29T12:00:00+00:00")
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("ago", "used_count", "expected"),
    [
        (None, 0, True),
        (timedelta(hours=1), 100, False),
        (timedelta(hours=23), 1000, False),
        (DAY, 6, True),
        (DAY, 5, False),
        (6 * DAY, 5, False),
        (7 * DAY, 0, True),
    ],
)
def test_all_tags_are_requested_after_a_day_and_six_syncs_or_a_week(
    ago: timedelta | None, used_count: int, expected: bool
) -> None:
    known = Confirmation(None if ago is None else NOW - ago, NOW, used_count)
    assert must_confirm(known, NOW, DAY) is expected
    assert must_confirm(known, NOW, timedelta(0)) is True, "0 hours: always"


def test_a_daily_mirror_requests_all_tags_each_seventh_time(here: Installation, by_api: MemoryRegistry) -> None:
    synced(here, by_api, tagged(20))
    counts = []
    for _ in range(8):
        age(here, timedelta(days=1))
        here.sync("app", by_api.url, NAME)
        counts.append(len(heads(by_api)))
    assert counts == [*[SAMPLE] * 6, 20, SAMPLE]


def test_a_sync_of_other_tags_confirms_none(here: Installation, registry: MemoryRegistry) -> None:
    synced(here, registry, tagged(), include_tags=("*",))
    age(here, timedelta(days=8))
    here.sync("app", registry.url, NAME, mode="additive", include_tags=("v0*",))
    registry.reset_counts()
    assert here.sync("app", registry.url, NAME, include_tags=("*",)) is None
    assert len(heads(registry)) == TAGS


# -- what is left alone -------------------------------------------------------------------------------------------


def test_off_requests_each_tag(here: Installation, registry: MemoryRegistry) -> None:
    content = tagged()
    synced(here, registry, content, digest_list="off")
    assert here.sync("app", registry.url, NAME, digest_list="off") is None
    assert registry.log().count(kind="digests") == 0
    assert sorted(heads(registry)) == sorted(content.tags)
    assert recorded(here) == (None, 0, None)


def test_a_few_tags_are_requested_without_asking_an_api(here: Installation, by_api: MemoryRegistry) -> None:
    content = tagged(3)
    synced(here, by_api, content)
    assert here.sync("app", by_api.url, NAME) is None
    assert by_api.log().count(kind="digests") == 0
    assert sorted(heads(by_api)) == sorted(content.tags)


def test_few_tags_of_many_are_requested_without_asking_an_api(here: Installation, by_api: MemoryRegistry) -> None:
    by_api.serve(NAME, tagged(120))
    here.sync("app", by_api.url, NAME, include_tags=("v00[0-4]",))
    by_api.reset_counts()
    assert here.sync("app", by_api.url, NAME, include_tags=("v00[0-4]",)) is None
    assert by_api.log().count(kind="digests") == 0
    assert len(heads(by_api)) == 5


def test_named_tags_are_requested_without_a_list(here: Installation, registry: MemoryRegistry) -> None:
    names = tuple(f"v{number:03}" for number in range(30))
    registry.serve(NAME, tagged())
    for _ in range(2):
        registry.reset_counts()
        here.sync("app", registry.url, NAME, include_tags=names, include_referrers=False)
    assert (registry.log().manifest_head_count, registry.log().count()) == (30, 30)


def test_signatures_beside_images_are_known_by_the_list_too(here: Installation, registry: MemoryRegistry) -> None:
    content = every_kind(releases=120)
    registry.serve(NAME, content)
    here.sync("app", registry.url, NAME, include_tags=("v*", "1*", "2*", "oci*", "docker*"))
    registry.reset_counts()
    assert here.sync("app", registry.url, NAME, include_tags=("v*", "1*", "2*", "oci*", "docker*")) is None
    assert len(heads(registry)) <= 4


def test_a_try_after_a_failed_one_lists_again_and_keeps_what_was_requested(
    here: Installation, registry: MemoryRegistry
) -> None:
    synced(here, registry, tagged())
    after = tagged(moved=5)
    registry.serve(NAME, after)
    registry.on("HEAD", "manifest", "v003", refusal(503, retry_after_seconds=60))
    with pytest.raises(Exception, match="503"):
        here.sync("app", registry.url, NAME, run_id="r")
    first = heads(registry)
    registry.serve(NAME, after)
    assert here.sync("app", registry.url, NAME, run_id="r") is not None
    assert_equals(here, after)
    again = set(heads(registry)).difference(["v003"])
    assert len(again.intersection(first)) == 0, "what was requested is known"


def test_a_dry_run_uses_the_list_as_the_sync_after_it(here: Installation, registry: MemoryRegistry) -> None:
    synced(here, registry, tagged())
    for _ in range(2):
        request = SyncRequest(repository="app", url=registry.url, upstream_name=NAME)
        assert here.plan(request).number is None
        assert len(heads(registry)) == SAMPLE
        assert here.sync("app", registry.url, NAME) is None
        assert len(heads(registry)) == SAMPLE


def test_two_lists_that_differ_between_tag_pages_are_read_as_one(here: Installation) -> None:
    registry = MemoryRegistry(lists_digests=True, page_size=50)
    content = tagged()
    synced(here, registry, content)
    twice = Digest.of(b"twice")
    pages = [tag_page(sorted(content.tags), digests={**content.tags, "v059": twice})]
    registry.on("GET", "tags", "", *pages)
    assert here.sync("app", registry.url, NAME) is None
    asked = heads(registry)
    assert "v059" in asked
    assert len(asked) == SAMPLE + 1
