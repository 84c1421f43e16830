"""How much a mirror may lose unasked: no more than half of its tags, however few they are, and what says so."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagName, fallback_tag
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import NothingSynced, TooFewTags, TooManyRemovals
from support.metadata import Upstream, image, index, new_key, play_stages

REMOTE = RemoteSpec.parse("upstream", "https://registry.example", "library/app")
PLAIN = {"os": "linux", "architecture": "amd64"}


@pytest.fixture
def repository(database: Database) -> Repository:
    return database.repositories.ensure("app")


def commit(
    database: Database,
    repository: Repository,
    upstream: Upstream,
    *,
    filtered: dict[str, Any] | None = None,
    **options: Any,
) -> set[str]:
    """A mirror by a remote of these options; the names of the tags of its version."""
    remote = database.remotes.ensure(REMOTE.changed(**options))
    run = database.runs.begin(
        new_key(), repository_id=repository.id, remote_id=remote.id, remote=remote.spec, mode=SyncMode.MIRROR
    )
    indexes = filtered or {}
    play_stages(database, run, upstream, reread=indexes)
    database.contents.add_manifests(list(indexes.values()))
    database.runs.filter_tags(run.id, {TagName(name): found.digest for name, found in indexes.items()})
    database.versions.commit(run.id)
    return set(database.versions.tags(repository.id))


def tagged(*names: str) -> Upstream:
    upstream = Upstream()
    for name in names:
        upstream.tag(name, image(name))
    return upstream


@pytest.mark.parametrize(
    ("before", "after", "stops"),
    [
        (["latest"], [], True),
        (["latest"], ["other"], True),
        (["v1", "v2"], ["v1"], False),
        (["v1", "v2"], [], True),
        (["v1", "v2", "v3"], ["v1", "v2"], False),
        (["v1", "v2", "v3"], ["v1"], True),
        (["v1", "v2", "v3"], ["v1", "w1", "w2", "w3"], True),
        (["v1", "v2", "v3", "v4"], ["v1", "v2"], False),
        ([f"v{number}" for number in range(10)], [f"v{number}" for number in range(4)], True),
        ([f"v{number}" for number in range(10)], [f"v{number}" for number in range(5)], False),
    ],
)
def test_more_than_half_of_the_tags_never_go_unapproved_whatever_their_number(
    database: Database, repository: Repository, before: list[str], after: list[str], stops: bool
) -> None:
    commit(database, repository, tagged(*before))
    if not stops:
        assert commit(database, repository, tagged(*after)) == set(after)
        return
    with pytest.raises(TooManyRemovals, match=r"(gone upstream).*max_removed_share 0\.5"):
        commit(database, repository, tagged(*after))
    assert set(database.versions.tags(repository.id)) == set(before)
    assert commit(database, repository, tagged(*after), max_removed_share=None) == set(after)


@pytest.mark.parametrize(
    ("before", "after", "options", "said"),
    [
        (
            ["latest"],
            [],
            {},
            "the only tag is gone upstream, more than max_removed_share 0.5 of remote 'upstream' allows",
        ),
        (["a", "b", "c"], ["a"], {}, "2 of 3 tags are gone upstream, more than"),
        (
            ["a1", "a2", "b"],
            ["a1", "a2", "b"],
            {"include_tags": ("b*",)},
            "are not among include_tags b*, more than {limit}; include_tags was all for version 1: a1, a2. To remove",
        ),
        (
            ["a1", "a2", "b"],
            ["a1", "a2", "b"],
            {"exclude_tags": ("a*", "c")},
            "are excluded by exclude_tags a*, c, more than {limit}; exclude_tags was none for version 1: a1, a2. To",
        ),
        (
            ["a1", "a2", "b", "c"],
            ["a1", "a2", "b"],
            {"exclude_tags": ("a*",)},
            "3 of 4 tags would be removed: 2 are excluded by exclude_tags a*, 1 is gone upstream, more than",
        ),
        (
            ["a", "b"],
            [],
            {"upstream_name": "library/other"},
            "so no version was made; the upstream was registry.example/library/app for version 1: a, b. To remove",
        ),
        (
            ["a", "b", "c"],
            ["a", "b"],
            {"max_removed_tags": 0},
            "1 of 3 tags is gone upstream, more than max_removed_tags 0 of remote 'upstream' allows",
        ),
    ],
)
def test_the_text_says_which_filter_or_option_led_to_it(
    database: Database, repository: Repository, before: list[str], after: list[str], options: dict[str, Any], said: str
) -> None:
    commit(database, repository, tagged(*before))
    upstream = tagged(*after)
    tag_filter = REMOTE.changed(**options).tag_filter
    for name in set(after) - set(tag_filter.select(map(TagName, after)).tags):
        del upstream.tags[name]
    with pytest.raises(TooManyRemovals) as refused:
        commit(database, repository, upstream, **options)
    limit = "max_removed_share 0.5 of remote 'upstream' allows, so no version was made"
    assert said.format(limit=limit) in str(refused.value)
    assert str(refused.value).endswith("To remove them, approve the removals of this run")


def test_tags_without_any_selected_platform_take_an_approval_of_their_own(
    database: Database, repository: Repository
) -> None:
    upstream = tagged("a", "b", "c", "d")
    upstream.tag("multi", multi := index(image("multi"), platform=PLAIN), image("multi"))
    commit(database, repository, upstream)
    del upstream.tags["multi"]
    upstream.tags["multi"] = multi
    with pytest.raises(
        TooManyRemovals, match=r"1 of 5 tags has none of the platforms linux/arm64; available are linux/amd64"
    ):
        commit(database, repository, upstream, filtered={"multi": multi}, platforms=("linux/arm64",))


def test_signatures_go_with_their_image_and_are_not_counted(database: Database, repository: Repository) -> None:
    upstream = tagged("latest")
    old = upstream.tags["latest"].digest
    for suffix in (".sig", ".att", ".sbom"):
        upstream.tag(f"{fallback_tag(old)}{suffix}", image(f"old{suffix}"))
    commit(database, repository, upstream)
    moved = Upstream()
    moved.tag("latest", image("new"))
    moved.tag(f"{fallback_tag(moved.tags['latest'].digest)}.sig", image("new.sig"))
    assert len(commit(database, repository, moved, include_tags=("latest",))) == 2


def test_signatures_of_images_that_stay_are_counted_by_themselves(database: Database, repository: Repository) -> None:
    upstream = tagged(*(f"v{number}" for number in range(6)))
    signed = Upstream(dict(upstream.tags), dict(upstream.catalog))
    for number in range(3):
        signed.tag(f"{fallback_tag(upstream.tags[f'v{number}'].digest)}.sig", image(f"sig {number}"))
    options = {"include_tags": ("v*",)}
    commit(database, repository, signed, **options)
    with pytest.raises(
        TooManyRemovals,
        match=r"3 of 3 tags of signatures and other referrers are excluded by include_referrers false, more than .*; "
        "include_referrers was true for version 1: ",
    ):
        commit(database, repository, upstream, **options, include_referrers=False)


def test_signatures_do_not_make_a_mirror_look_larger_than_it_is(database: Database, repository: Repository) -> None:
    upstream = tagged("v1", "v2")
    for number in range(4):
        upstream.tag(f"{fallback_tag(upstream.tags['v1'].digest)[:-1]}{number}.sig", image(f"sig {number}"))
    commit(database, repository, upstream)
    for name in ("v1", "v2"):
        del upstream.tags[name]
    with pytest.raises(TooManyRemovals, match="2 of 2 tags are gone upstream"):
        commit(database, repository, upstream)


def test_images_that_are_named_after_their_own_digests_are_counted(database: Database, repository: Repository) -> None:
    upstream = Upstream()
    for number in range(7):
        upstream.tag(fallback_tag(image(f"{number}").digest), image(f"{number}"))
    commit(database, repository, upstream)
    for name in list(upstream.tags)[1:]:
        del upstream.tags[name]
    with pytest.raises(TooManyRemovals, match="6 of 7 tags are gone upstream"):
        commit(database, repository, upstream)


@pytest.mark.parametrize("suffix", ["", ".sig", ".att"])
def test_what_is_named_after_an_image_that_was_never_there_counts(
    database: Database, repository: Repository, suffix: str
) -> None:
    """A repository of signatures alone; or images named after the index that they came from, by some tools."""
    names = [fallback_tag(image(f"elsewhere {number}").digest) + suffix for number in range(10)]
    commit(database, repository, tagged(*names))
    with pytest.raises(TooManyRemovals, match="9 of 10"):
        commit(database, repository, tagged(names[0]))
    with pytest.raises(TooManyRemovals, match="max_removed_tags 0"):
        commit(database, repository, tagged(*names[1:]), max_removed_share=None, max_removed_tags=0)
    assert commit(database, repository, tagged(*names[:5])) == set(names[:5])


@pytest.mark.parametrize("there", [{}, {"old": "old"}], ids=["first", "later"])
def test_images_without_platforms_do_not_hide_that_the_platforms_leave_nothing_of_any_index(
    database: Database, repository: Repository, there: dict[str, str]
) -> None:
    if there:
        commit(database, repository, tagged("old"))
    plain, windows = image("old"), index(image("w"), platform={"os": "windows", "architecture": "amd64"})
    upstream = tagged("old")
    upstream.tag("windows", windows, image("w"))
    upstream.tag(fallback_tag(plain.digest), index(image("signature")), image("signature"))
    with pytest.raises(
        NothingSynced,
        match=r"platforms linux/amd46 .* leave nothing of the only tag that is an index; available are windows/amd64\.",
    ):
        commit(database, repository, upstream, filtered={"windows": windows}, platforms=("linux/amd46",))
    upstream.tag("linux", index(image("l"), platform=PLAIN), image("l"))
    taken = commit(database, repository, upstream, filtered={"windows": windows}, platforms=("linux/amd64",))
    assert taken == {"old", "linux", fallback_tag(plain.digest)}
    assert database.selections.has_index(repository.id)


def test_tags_named_after_themselves_are_indexes_like_others(database: Database, repository: Repository) -> None:
    windows = index(image("w"), platform={"os": "windows", "architecture": "amd64"})
    upstream, own = tagged("old"), index(image("l"), platform=PLAIN)
    upstream.tag("windows", windows, image("w"))
    upstream.tag(fallback_tag(own.digest), own, image("l"))
    taken = commit(database, repository, upstream, filtered={"windows": windows}, platforms=("linux/amd64",))
    assert taken == {"old", fallback_tag(own.digest)}
    assert not database.selections.has_index(repository.id), "the commit looks closer"


def test_a_version_with_fewer_tags_than_required_is_not_made_and_the_first_neither(
    database: Database, repository: Repository
) -> None:
    with pytest.raises(TooFewTags, match=r"would have 2 tags, fewer than min_tags 3 .* was made: a, b\. If"):
        commit(database, repository, tagged("a", "b"), min_tags=3)
    assert database.repositories.by_name("app").latest_number is None
    assert commit(database, repository, tagged("a", "b", "c"), min_tags=3) == {"a", "b", "c"}
    with pytest.raises(TooFewTags, match="would have 2 tags"):
        commit(database, repository, tagged("a", "b"), min_tags=3)
    assert commit(database, repository, tagged("a", "b", "c"), min_tags=4) == {"a", "b", "c"}, "nothing changes"


def test_few_tags_are_counted_without_signatures_and_after_what_an_additive_sync_keeps(
    database: Database, repository: Repository
) -> None:
    signed = image("a")
    upstream = tagged("a", "b")
    upstream.tag(fallback_tag(signed.digest), index(image("signature")), image("signature"))
    with pytest.raises(TooFewTags, match="would have 2 tags, fewer than min_tags 3"):
        commit(database, repository, upstream, min_tags=3)
    assert len(commit(database, repository, upstream, min_tags=2)) == 3


def test_one_refusal_is_of_too_many_removals_and_of_the_few_tags_that_they_leave(
    database: Database, repository: Repository
) -> None:
    commit(database, repository, tagged("a", "b", "c"))
    with pytest.raises(TooManyRemovals, match=r"2 of 3 tags .*; 1 tag would be left, fewer than min_tags 2: b, c"):
        commit(database, repository, tagged("a"), min_tags=2)
    with pytest.raises(TooFewTags, match="would have no tag, fewer than min_tags 1"):
        commit(database, repository, tagged(), min_tags=1, max_removed_share=None)
