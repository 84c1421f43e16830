"""Mirrors that share the sample by which a registry's lists of digests are audited, until it speaks against one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from registry_sync.db.tables import sync_runs
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import DigestListUse
from registry_sync.sync.digest_hints import SAMPLE_COUNT, sample_size
from registry_sync.sync.mirror_tasks import MirrorTask
from registry_sync.sync.shared_audits import RegistryAudit, SharedAudit
from support.images import RepositoryContent
from support.memory_registry import HELD, MemoryRegistry, document, refusal, tag_page
from support.mirrors import Fleet, RenewedFleets, names, small_repository

pytestmark = pytest.mark.slow

TAGS = [TagName(f"v{number}") for number in range(10)]
MIRRORS = 30
LAST = names(MIRRORS)[-1]
FIRST = names(MIRRORS)[0]
CONTENT_OF_LAST = small_repository(MIRRORS - 1, tags=10, moved=1)


# -- the sample ---------------------------------------------------------------------------------------------------


def audit_of(count: int, moving: dict[str, list[TagName]] | None = None) -> SharedAudit:
    return SharedAudit(RegistryAudit(), dict.fromkeys(names(count), TAGS), lambda: moving or {})


@pytest.mark.parametrize("count", [1, 2, 30, 31, 100])
def test_together_mirrors_have_the_sample_of_one_with_all_their_tags(count: int) -> None:
    audit, order = audit_of(count), names(count)
    random.shuffle(order)
    drawn = [audit.draw(name, set(TAGS)) or [] for name in order]
    assert sum(map(len, drawn)) == sample_size(10 * count)
    assert all(len(set(tags)) == len(tags) and set(tags) <= set(TAGS) for tags in drawn)


def test_every_tag_of_every_mirror_has_the_same_chance() -> None:
    found: Counter[tuple[int, TagName]] = Counter()
    for _ in range(3000):
        audit = audit_of(4)
        for number, name in enumerate(names(4)):
            found.update((number, tag) for tag in audit.draw(name, set(TAGS)) or [])
    expected = 3000 * SAMPLE_COUNT / 40
    assert len(found) == 40
    assert all(0.6 * expected < count < 1.4 * expected for count in found.values()), "six standard deviations"


def test_half_of_it_are_tags_that_have_moved_before_whichever_mirrors_have_them() -> None:
    audit = audit_of(50, {names(50)[7]: TAGS[:1], names(50)[49]: [*TAGS[3:5], TagName("gone")]})
    drawn = {name: audit.draw(name, set(TAGS)) or [] for name in names(50)}
    assert drawn[names(50)[7]][:1] == TAGS[:1]
    assert drawn[names(50)[49]][:2] in ([*TAGS[3:5]], [*TAGS[4:2:-1]]), (
        "there are three, which is half of five and more"
    )
    assert sum(map(len, drawn.values())) == 5


def test_what_is_not_unchanged_by_a_list_is_drawn_of_others_in_its_place() -> None:
    audit = audit_of(20)
    audit.leave(names(20)[0])
    drawn = [audit.draw(name, set()) for name in names(20)[1:10]]
    assert drawn == [[]] * 9
    audit.leave(names(20)[10])
    assert sum(len(audit.draw(name, set(TAGS)) or []) for name in names(20)[11:]) == SAMPLE_COUNT


def test_after_a_finding_each_is_audited_by_itself() -> None:
    audit = audit_of(3)
    assert audit.draw(FIRST, set(TAGS)) is not None
    audit.of_registry.fail()
    assert audit.draw("team/app-001", set(TAGS)) is None


# -- syncs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewedFleets]:
    made = RenewedFleets(tmp_path_factory.mktemp("audits"))
    yield made
    made.close()


@pytest.fixture
def registry() -> Iterator[MemoryRegistry]:
    with MemoryRegistry(lists_digests=True, netloc=RenewedFleets.NETLOC) as found:
        yield found


@pytest.fixture
def fleet(fleets: RenewedFleets, registry: MemoryRegistry, tmp_path: Path) -> Fleet:
    """Mirrors of ten tags that were synced once; a tag of the last one has moved since, and was synced."""
    found = fleets.begin(registry, tmp_path, names(MIRRORS)).fill(tags=10)
    fleets.once(found, tmp_path, "mirrors", partial(sync_and_move_the_last, found))
    registry.serve(LAST, CONTENT_OF_LAST)
    registry.reset_counts()
    return found


def sync_and_move_the_last(fleet: Fleet) -> None:
    assert str(fleet.sync("run-1")) == f"{MIRRORS} changed"
    fleet.registry.serve(LAST, CONTENT_OF_LAST)
    fleet.repositories = [LAST]
    assert str(fleet.sync("run-1b")) == "1 changed"
    fleet.repositories = names(MIRRORS)


def heads(fleet: Fleet) -> Counter[str]:
    """The HEADs of each repository since the last call."""
    found = Counter(request.repository for request in fleet.registry.log().select("HEAD", "manifest"))
    fleet.registry.reset_counts()
    return found


def uses(fleet: Fleet, run_id: str) -> Counter[str | None]:
    """What the syncs of a run found of the lists, of each repository the last one."""
    with fleet.here.database.reading() as connection:
        of_run = sync_runs.select().where(sync_runs.c.run_id == run_id).order_by(sync_runs.c.started_at)
        return Counter({row.repository_id: row.digest_list for row in connection.execute(of_run)}.values())


def age(fleet: Fleet, repository: str, by: timedelta) -> None:
    """Lets the syncs of a repository be earlier."""
    with fleet.here.database.writing() as connection:
        rows = connection.execute(sync_runs.select().where(sync_runs.c.repository_name == repository)).all()
        for row in rows:
            times = {"started_at": row.started_at - by, "listed_at": row.listed_at - by}
            connection.execute(update(sync_runs).where(sync_runs.c.id == row.id).values(**times))


def assert_holds(fleet: Fleet, content: RepositoryContent, name: str) -> None:
    repository = fleet.here.database.repositories.by_name(name)
    assert fleet.here.database.versions.tags(repository.id) == content.tags


def test_unchanged_mirrors_cost_a_list_each_and_one_sample_together(fleet: Fleet) -> None:
    synced = fleet.sync("run-2")
    assert str(synced) == f"{MIRRORS} unchanged"
    assert fleet.registry.log().count(kind="tags") == MIRRORS
    asked = heads(fleet)
    assert asked.total() == sample_size(10 * MIRRORS) == 3
    assert asked[LAST] >= 1, "a tag of it has moved before"
    assert uses(fleet, "run-2") == {DigestListUse.USED.value: MIRRORS}
    assert sum(result.request_count for result in synced.results) == MIRRORS + 3


def test_a_repository_whose_tags_are_to_be_confirmed_has_each_requested_and_leaves_the_sample_to_others(
    fleet: Fleet,
) -> None:
    age(fleet, FIRST, timedelta(days=8))
    assert str(fleet.sync("run-2")) == f"{MIRRORS} unchanged"
    asked = heads(fleet)
    assert asked.pop(FIRST) == 10
    assert asked.total() == 3
    assert uses(fleet, "run-2") == {DigestListUse.USED.value: MIRRORS - 1, None: 1}
    fleet.sync("run-3", confirm_after=timedelta(0))
    assert heads(fleet) == dict.fromkeys(names(MIRRORS), 10)


def test_each_registry_has_a_sample_of_its_own(fleet: Fleet) -> None:
    with MemoryRegistry(lists_digests=True) as other:
        mine = [f"other/app-{number}" for number in range(5)]
        for number, name in enumerate(mine):
            other.serve(name, small_repository(100 + number, tags=10))
        fleet.repositories = [*names(MIRRORS), *mine]
        fleet.urls = dict.fromkeys(mine, other.url)
        fleet.sync("run-1c")
        other.reset_counts()
        heads(fleet)
        assert str(fleet.sync("run-2")) == f"{MIRRORS + 5} unchanged"
        assert (heads(fleet).total(), other.log().manifest_head_count) == (3, 3)


def test_a_mirror_that_is_synced_alone_has_its_own_sample(fleet: Fleet) -> None:
    fleet.repositories = [FIRST]
    fleet.sync("run-2")
    assert heads(fleet) == {FIRST: SAMPLE_COUNT}


def test_where_a_list_is_found_out_of_date_all_of_its_registry_are_audited_by_themselves(fleet: Fleet) -> None:
    """Those that were recorded before, too: the finding comes with the last mirror."""
    fleet.registry.freeze_digests()
    first, last = small_repository(0, tags=10, moved=10), small_repository(200, tags=10)
    fleet.registry.serve(FIRST, first)
    fleet.registry.serve(LAST, last)
    synced = fleet.sync("run-2")
    assert str(synced) == f"{MIRRORS - 2} unchanged, 2 changed"
    assert_holds(fleet, first, FIRST)
    assert_holds(fleet, last, LAST)
    asked = heads(fleet)
    assert all(asked[name] >= SAMPLE_COUNT for name in names(MIRRORS))
    assert asked[LAST] == 10
    assert uses(fleet, "run-2") == {DigestListUse.USED.value: MIRRORS - 2, DigestListUse.STALE.value: 2}
    assert any("list of digests is out of date" in line for line in fleet.here.lines)
    known = fleet.here.database.mirror_results.of_task("fleet", "run-2", "sync_mirrors")
    assert len(known) == MIRRORS
    for result in known.values():
        run = fleet.here.database.runs.by_key(MirrorTask("fleet", "run-2", "sync_mirrors").key(result.repository))
        assert result.sync_run_id == run.id
    # As long as that is remembered of one of them, the others are audited by themselves.
    assert str(fleet.sync("run-3")) == f"{MIRRORS} unchanged"
    asked = heads(fleet)
    assert (asked.pop(FIRST), asked.pop(LAST)) == (10, 10)
    assert min(asked[name] for name in names(MIRRORS)[1:-1]) >= SAMPLE_COUNT


def test_a_tag_that_moves_between_list_and_request_is_listed_again_and_ends_the_shared_sample(fleet: Fleet) -> None:
    old, moved_back = CONTENT_OF_LAST.tags, small_repository(MIRRORS - 1, tags=10)
    fleet.registry.serve(LAST, moved_back)
    fleet.registry.on("GET", "tags", "", tag_page(sorted(old), digests=old), HELD, repository=LAST)
    assert str(fleet.sync("run-2")) == f"{MIRRORS - 1} unchanged, 1 changed"
    assert_holds(fleet, moved_back, LAST)
    asked = heads(fleet)
    assert all(asked[name] >= SAMPLE_COUNT for name in names(MIRRORS))
    assert uses(fleet, "run-2") == {DigestListUse.USED.value: MIRRORS}


def test_heads_without_digests_end_the_shared_sample(fleet: Fleet) -> None:
    built = CONTENT_OF_LAST.manifests[CONTENT_OF_LAST.tags["1.0"]]
    fleet.registry.on("HEAD", "manifest", "1.0", document(built.data, built.media_type), repository=LAST)
    assert str(fleet.sync("run-2")) == f"{MIRRORS} unchanged"
    assert uses(fleet, "run-2")[DigestListUse.FAILED.value] == 1
    asked = heads(fleet)
    assert all(asked[name] >= SAMPLE_COUNT for name in names(MIRRORS))


def test_a_mirror_that_fails_while_it_is_audited_again_is_not_in_order(fleet: Fleet) -> None:
    fleet.registry.freeze_digests()
    fleet.registry.serve(LAST, small_repository(200, tags=10))
    content = small_repository(0, tags=10).tags
    page = tag_page(sorted(content), digests=content)
    fleet.registry.on("GET", "tags", "", page, refusal(404, "NAME_UNKNOWN"), repository=FIRST)
    synced = fleet.sync("run-2")
    assert str(synced) == f"{MIRRORS - 2} unchanged, 1 changed, 1 failed: {FIRST}"
