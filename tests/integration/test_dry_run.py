"""A dry run says what the sync straight after it does, and writes nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from registry_sync.db.database import Database
from registry_sync.db.tables import metadata
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import PageRequest, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CommitResult, RunUsage
from registry_sync.domain.sync_plans import SHOWN_CHANGES, PlanOutcome, SyncPlan
from registry_sync.domain.version_history import Amounts, CopyRequest
from registry_sync.errors import OtherUpstream, RecordNotFound, RegistrySyncError
from registry_sync.oci.client import RegistryReader
from registry_sync.sync.open_run import SyncRequest
from support.choosing import NAME
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry, refusal
from support.postgres import running_postgres
from support.shapes import any_shape, documented_example
from support.syncing import Installation, new_client

_numbers = itertools.count(1)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(has_referrers_api=True)


def written(here: Installation, folder: Path) -> Any:
    """Every row of every table, and every file of the blob store."""
    with here.database.reading() as connection:
        rows = {
            table.name: sorted(map(repr, connection.execute(select(table)).all())) for table in metadata.sorted_tables
        }
    return rows, sorted(str(path) for path in folder.rglob("*") if path.is_file() and "registry_sync" not in path.name)


def done(here: Installation, request: SyncRequest) -> tuple[CommitResult | None, RunUsage, RegistrySyncError | None]:
    """What the sync gave, what it requested, and why it stopped; None where it did not."""
    used: list[RunUsage] = []

    @contextmanager
    def client(remote: RemoteSpec) -> Iterator[RegistryReader]:
        with new_client(remote) as opened:
            yield opened
            used.append(opened.usage.counts())

    try:
        result = here.run(request, run_id=f"run-{next(_numbers)}", client=client, is_last_try=True)
    except RegistrySyncError as refused:
        return None, RunUsage(), refused
    return result, used[0], None


def assert_planned(here: Installation, folder: Path, request: SyncRequest) -> SyncPlan | None:
    """Plans and syncs; the plan is what the sync did. None where both failed before there was anything to plan."""
    before = written(here, folder)
    plan, failure = None, None
    try:
        plan = here.plan(request, is_last_try=True)
    except RegistrySyncError as problem:
        failure = (type(problem), str(problem))
    assert written(here, folder) == before, "a dry run writes nothing"
    stored_before = stored(here)
    result, usage, refused = done(here, request)
    if plan is None:
        assert refused is not None
        assert failure == (type(refused), str(refused))
        return None
    if refused is not None:
        assert plan.outcome is PlanOutcome.REFUSED, refused
        assert (plan.refusals[0].error, plan.refusals[0].message) == (type(refused).__name__, str(refused))
        assert plan.number is None
        return plan
    assert plan.refusals == ()
    assert plan.downloads.requests == usage
    assert plan.downloads.request_count == sum(
        (usage.head_count, usage.manifest_get_count, usage.blob_get_count, usage.tag_page_count)
    )
    assert plan.downloads.blobs == len(stored(here)) - len(stored_before)
    if result is None or result.version is None:
        assert (plan.outcome, plan.number) == (PlanOutcome.UNCHANGED, None)
        return plan
    version = result.version
    assert (plan.outcome, plan.number, plan.base_number) == (PlanOutcome.VERSION, version.number, version.base_number)
    difference = here.database.versions.difference(
        version.repository_id, version.number, version.base_number or 0, request=PageRequest(limit=1000)
    )
    tags = difference.tags
    assert (plan.tags.added, plan.tags.moved, plan.tags.removed) == (
        tags.added_count,
        tags.moved_count,
        tags.removed_count,
    )
    assert plan.tags.present == version.summary.present.get("docker.tag", 0)
    assert (plan.manifests, plan.blobs) == (difference.manifests.count, difference.blobs.count)
    assert plan.tag_changes == tags.page.items
    assert (plan.holds, plan.tags.held) == (result.holds, len(result.holds))
    return plan


def stored(here: Installation) -> set[Digest]:
    return set(here.store.digests())


# -- random histories --------------------------------------------------------------------------------------------------


def part_of(content: RepositoryContent, dice: random.Random) -> RepositoryContent:
    """Some of its tags, some of them moved to what others name."""
    names = [name for name in content.tags if dice.random() < 0.8] or list(content.tags)[:1]
    kept = content.closure(names)
    moved = {name: dice.choice(list(kept.tags.values())) if dice.random() < 0.2 else kept.tags[name] for name in names}
    roots = [*moved.values(), *(digest for digest in content.manifests if dice.random() < 0.5)]
    return content.part(moved, roots)


def any_request(registry: MemoryRegistry, dice: random.Random) -> SyncRequest:
    options: dict[str, Any] = {}
    if dice.random() < 0.3:
        options["include_tags"] = tuple(dice.sample(["v[0-3]", "v1", "v9", "v*", "sha256-*"], 2))
    if dice.random() < 0.2:
        options["exclude_tags"] = ("v2",)
    if dice.random() < 0.3:
        options["platforms"] = ("linux/amd64",)
    if dice.random() < 0.2:
        options["max_total_bytes"] = dice.choice((1, 2000, 1_000_000))
    if dice.random() < 0.4:
        options["include_referrers"] = dice.random() < 0.5
    options["policy"] = dice.choice(("immediate", "immediate", "on_demand", "streamed"))
    options["download_concurrency"] = 1
    mode = dice.choice(("mirror", "mirror", "additive"))
    repository = dice.choice(("app", "app", "other"))
    return SyncRequest(repository, None, registry.url, NAME, mode=mode, options=options)


def disturb(here: Installation, registry: MemoryRegistry, content: RepositoryContent, dice: random.Random) -> None:
    """Something that happens between two syncs."""
    repositories = {each.name: each for each in here.database.repositories.page().items}
    chance = dice.random()
    if chance < 0.3 and content.manifests:
        for digest in dice.sample(list(content.manifests), 2):
            registry.on("GET", "manifest", digest, refusal(dice.choice((404, 400, 503))))
    elif chance < 0.4 and stored(here):
        here.store.delete(dice.choice(sorted(stored(here))))
    elif chance < 0.55 and "app" in repositories and (repositories["app"].latest_number or 0) > 1:
        here.database.versions.roll_back(repositories["app"].id, 1)
    elif chance < 0.7 and len(repositories) == 2:
        copied = CopyRequest(repositories["app"].id, None, TagFilter.parse(["v*"]), SyncMode.ADDITIVE)
        try:
            here.database.versions.copy(repositories["other"].id, copied)
        except RecordNotFound:  # without a version, or without such a tag
            assert not any(tag.startswith("v") for tag in here.database.versions.tags(repositories["app"].id))
    else:
        registry.forget("manifest")
    registry.has_referrers_api = dice.random() < 0.8


@pytest.mark.parametrize("seed", [9, 12, 18, 22])
def test_a_plan_is_what_the_sync_straight_after_it_does(
    here: Installation, registry: MemoryRegistry, tmp_path: Path, seed: int
) -> None:
    plan_and_sync(here, registry, tmp_path, seed)


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Path]]:
    """An installation whose metadata are in PostgreSQL, and its folder."""
    folder = tmp_path_factory.mktemp("on-postgresql")
    with running_postgres() as server, Database.connect(server.make_database("dry_run")) as database:
        database.upgrade()
        yield Installation.on(database, folder), folder


def test_a_plan_is_made_on_a_copy_from_postgresql(
    on_postgresql: tuple[Installation, Path], registry: MemoryRegistry
) -> None:
    here, folder = on_postgresql
    plan_and_sync(here, registry, folder, 22)


def plan_and_sync(here: Installation, registry: MemoryRegistry, folder: Path, seed: int) -> None:
    """Six times, with what may happen in between."""
    dice = random.Random(seed)
    content = any_shape(seed)
    limits: dict[str, Any] = {} if dice.random() < 0.5 else {"max_removed_share": None, "max_held_share": 0.5}
    for name in ("app", "other"):
        here.database.remotes.ensure(RemoteSpec.parse(name, registry.url, NAME, **limits))
    request = any_request(registry, dice)
    for _ in range(6):
        if dice.random() < 0.4:
            content = content.merged(any_shape(dice.randrange(1000)))
        if dice.random() < 0.8:
            registry.serve(NAME, part_of(content, dice))
            disturb(here, registry, content, dice)
            request = any_request(registry, dice)
        assert_planned(here, folder, request)


# -- decisions ---------------------------------------------------------------------------------------------------------


def of(registry: MemoryRegistry, **said: Any) -> SyncRequest:
    return SyncRequest("app", None, registry.url, NAME, **said)


def test_a_first_plan_names_what_it_would_create_and_counts_what_it_would_bring(
    here: Installation, registry: MemoryRegistry, tmp_path: Path
) -> None:
    content = documented_example()
    registry.serve(NAME, content)
    plan = assert_planned(here, tmp_path, of(registry, publish_as="team/app"))
    assert plan is not None
    assert plan.creates == ("repository", "remote", "distribution")
    assert (plan.number, plan.base_number) == (1, None)
    assert (plan.tags.listed, plan.tags.added, plan.tags.present) == (len(content.tags),) * 3
    assert plan.manifests == Amounts(added=len(content.manifests))
    assert (plan.downloads.blobs, plan.downloads.blob_bytes) == (len(content.blobs), content.blob_bytes)
    assert str(plan).startswith(f"app: would make version 1, {len(content.tags)} tags added; downloads ")
    again = assert_planned(here, tmp_path, of(registry))
    assert again is not None
    assert (again.outcome, again.creates, again.downloads.blobs) == (PlanOutcome.UNCHANGED, (), 0)
    assert str(again) == "app: nothing changed, no version would be made"


def test_every_reason_to_stop_is_found_with_the_counts_as_without_it(
    here: Installation, registry: MemoryRegistry, tmp_path: Path
) -> None:
    build = ContentBuilder(seed=3)
    for number in range(4):
        build.tag(f"v{number}", build.image([build.blob(1000)]))
    registry.serve(NAME, build.content())
    assert assert_planned(here, tmp_path, of(registry)) is not None
    build = ContentBuilder(seed=4)
    build.tag("v0", build.image([build.blob(5000)]))
    registry.serve(NAME, build.content())
    plan = here.plan(of(registry, options={"max_total_bytes": 100}))
    assert [refusal.error for refusal in plan.refusals] == ["LimitExceeded", "TooManyRemovals"]
    assert "v1, v2, v3" in plan.refusals[1].message
    assert (plan.number, plan.tags.moved, plan.tags.removed, plan.tags.present) == (None, 1, 3, 1)
    assert str(plan).startswith("app: would stop with LimitExceeded and TooManyRemovals, 0 tags added, 1 moved, 3 rem")


def test_too_few_tags_are_a_reason_to_stop_before_the_first_version(
    here: Installation, registry: MemoryRegistry
) -> None:
    registry.serve(NAME, documented_example())
    count = len(documented_example().tags)
    here.database.remotes.ensure(RemoteSpec.parse("few", registry.url, NAME, min_tags=count + 1))
    plan = here.plan(SyncRequest("app", "few"))
    assert [(refusal.error, plan.number, plan.tags.added) for refusal in plan.refusals] == [("TooFewTags", None, count)]


def test_a_filter_that_selects_nothing_is_a_reason_to_stop(
    here: Installation, registry: MemoryRegistry, tmp_path: Path
) -> None:
    registry.serve(NAME, documented_example())
    plan = assert_planned(here, tmp_path, of(registry, options={"include_tags": ("nothing*",)}))
    assert plan is not None
    assert "none of its 8 tags passes the filters include_tags nothing*" in plan.refusals[0].message
    assert here.database.repositories.page().total_count == 1, "the sync itself created it"


def test_a_tag_that_cannot_be_fetched_is_held_in_the_plan_with_the_same_reason(
    here: Installation, registry: MemoryRegistry, tmp_path: Path
) -> None:
    content = documented_example()
    registry.serve(NAME, content)
    broken = content.tags["v1"]
    registry.on("GET", "manifest", broken, refusal(400))
    plan = assert_planned(here, tmp_path, of(registry))
    assert plan is not None
    assert [hold.tag for hold in plan.holds] == sorted(tag for tag, digest in content.tags.items() if digest == broken)


def test_a_digest_that_cannot_be_verified_is_held_in_the_plan_as_by_the_sync(
    here: Installation, registry: MemoryRegistry, tmp_path: Path
) -> None:
    build = ContentBuilder(seed=5)
    build.tag("fine", build.image([build.blob(10)]))
    build.tag("other", build.image([build.blob_of(b"other", "sha384")]))
    registry.serve(NAME, build.content())
    plan = assert_planned(here, tmp_path, of(registry))
    assert plan is not None
    assert [hold.tag for hold in plan.holds] == ["other"]


def test_another_upstream_is_refused_before_anything_is_listed(
    here: Installation, registry: MemoryRegistry, tmp_path: Path
) -> None:
    registry.serve(NAME, documented_example())
    assert assert_planned(here, tmp_path, of(registry)) is not None
    registry.reset_counts()
    request = SyncRequest("app", None, registry.url, "team/other")
    with pytest.raises(OtherUpstream):
        here.plan(request)
    assert registry.log().count() == 0
    assert assert_planned(here, tmp_path, request) is None


def test_a_changed_remote_is_reported_and_not_changed(here: Installation, registry: MemoryRegistry) -> None:
    registry.serve(NAME, documented_example())
    here.sync("app", registry.url, NAME)
    plan = here.plan(of(registry, options={"policy": "on_demand"}))
    assert plan.remote_changes == "remote 'app' changed: policy from immediate to on_demand"
    assert here.database.remotes.by_name("app").spec.policy.value == "immediate"


def test_names_in_a_plan_are_bounded_and_its_counts_are_not(here: Installation, registry: MemoryRegistry) -> None:
    build = ContentBuilder(seed=6)
    image = build.image([build.blob(10)])
    for number in range(120):
        build.tag(f"v{number:03}", image)
    registry.serve(NAME, build.content())
    plan = here.plan(of(registry))
    assert (plan.tags.added, len(plan.tag_changes)) == (120, SHOWN_CHANGES)
