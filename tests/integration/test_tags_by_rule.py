"""Tags by rule in whole syncs: what is selected and requested, what is counted, and what a mirror loses or keeps."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositoryVersion
from registry_sync.domain.tag_selector import UNTAGGED_PREFIX
from registry_sync.errors import ConfigurationError, NothingSynced, ServerUnavailable, TooManyRemovals
from support.choosing import NAME, got, sync, tags
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry, refusal
from support.syncing import Installation

POSTGRES = ("latest", "17", "17.2", "17.2-alpine", "17.1", "17.1-alpine", "16.6", "16.6-alpine", "16", "18beta1")


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=68)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def push(build: ContentBuilder, *names: str) -> None:
    """A new image under each of these tags."""
    for name in names:
        build.tag(name, build.image([build.blob(40)]))


def present(here: Installation, version: RepositoryVersion | None) -> set[str]:
    """The tags of a version; of the latest one where a sync made none."""
    found = version or here.database.versions.latest(here.database.repositories.by_name("app").id)
    assert found is not None
    return tags(here, found)


def test_versions_of_a_variant_and_moving_tags_by_name(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, *POSTGRES)
    sets = [{"semver": ">=16 <18", "include": ["*-alpine"], "newest": 2}, {"include": ["17", "16"]}]
    version = sync(here, registry, build, tag_sets=sets)
    assert present(here, version) == {"17.2-alpine", "17.1-alpine", "17", "16"}
    assert {request.reference for request in registry.log().select("HEAD", "manifest")} <= present(here, version) | got(
        registry
    ), "what is not selected is not requested"
    push(build, "17.3-alpine", "17.3")
    version = sync(here, registry, build, tag_sets=sets)
    assert present(here, version) == {"17.3-alpine", "17.2-alpine", "17", "16"}


def test_what_is_no_version_is_left_out_and_counted(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, *POSTGRES, *(f"branch-{number}" for number in range(7)))
    version = sync(here, registry, build, semver="*", exclude_tags=("*-6",))
    assert present(here, version) == set(POSTGRES) - {"latest", "18beta1"}
    assert "7 tags are no versions and were left out: branch-0, branch-1, branch-2, branch-3, branch-4, 2 more" in (
        here.lines
    )


def test_regular_expressions_match_whole_names(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, *POSTGRES)
    version = sync(here, registry, build, include_tags=("latest",), regex=[r"1[67]\.\d{1,3}"], exclude_regex=[".*6"])
    assert present(here, version) == {"latest", "17.2", "17.1"}


def test_names_in_braces_need_no_listing(here: Installation, registry: MemoryRegistry, build: ContentBuilder) -> None:
    push(build, *POSTGRES)
    version = sync(here, registry, build, include_tags=("{16,17}", "17.2{,-alpine}"), include_referrers=False)
    assert present(here, version) == {"16", "17", "17.2", "17.2-alpine"}
    assert not registry.log().select("GET", "tags")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"semver": ">=99"}, r"passes the filters semver >=99"),
        ({"regex": ["v.*"], "newest": 2}, r"passes the filters regex v\.\* and newest 2"),
        ({"tag_sets": [{"semver": ">=99"}, {"regex": ["x"]}]}, "passes the filters tag_sets"),
        ({"tag_sets": [{"include": ["gone"]}, {"include": ["lost"]}]}, "none of the requested tags: gone, lost"),
        ({"newer_than": "2100-01-01", "order": "first_seen"}, "newer_than 2100-01-01 and order first_seen"),
    ],
)
def test_rules_that_select_nothing_never_empty_a_mirror(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, rules: dict[str, Any], said: str
) -> None:
    push(build, "17.1", "17.2")
    first = sync(here, registry, build)
    with pytest.raises(NothingSynced, match=said):
        sync(here, registry, max_removed_share=None, **rules)
    assert present(here, None) == present(here, first)


def test_the_newest_of_no_versions_is_an_error_that_names_another_order(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "main", "edge")
    with pytest.raises(ConfigurationError, match="none of 2 tags is a version, such as 'edge'; give another order"):
        sync(here, registry, build, newest=1)


def test_what_falls_out_of_the_newest_counts_for_the_guard_which_names_the_rule(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "1.0", "1.1", "1.2", "1.3")
    sync(here, registry, build, newest=4)
    with pytest.raises(
        TooManyRemovals,
        match=r"2 of 4 tags are not among newest 2, more than max_removed_share 0\.25 .*; newest was 4 for version 1: "
        r"1\.0, 1\.1\.",
    ):
        sync(here, registry, newest=2, max_removed_share=0.25)
    with pytest.raises(TooManyRemovals, match=r"2 of 4 tags are not among semver >=1\.2,"):
        sync(here, registry, newest=4, semver=">=1.2", max_removed_share=0.25)
    with pytest.raises(TooManyRemovals, match=r"2 of 4 tags are in none of the sets of tag_sets,"):
        sync(here, registry, tag_sets=[{"newest": 1}, {"include": ["1.2"]}], semver="*", max_removed_share=0.25)
    version = sync(here, registry, newest=2, semver="*", tag_sets=[], max_removed_share=0.5)
    assert "2 tags, 0 new or moved, 0 gone upstream, 2 excluded by the filters" in here.lines
    assert present(here, version) == {"1.2", "1.3"}
    push(build, "1.4")
    version = sync(here, registry, build, newest=2, mode="additive")
    assert present(here, version) == {"1.2", "1.3", "1.4"}, "additive syncs keep what falls out"


def test_a_removal_is_upstreams_where_the_tag_is_not_listed(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "1.0", "1.1", "1.2")
    sync(here, registry, build, newest=3)
    build.untag("1.0")
    with pytest.raises(TooManyRemovals, match="1 of 3 tags is gone upstream"):
        sync(here, registry, build, newest=3, max_removed_share=0)


# -- by first sight -----------------------------------------------------------------------------------------------


def test_the_newest_by_first_sight_are_those_that_came_last_and_not_those_that_were_never_selected(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "c0ffee1", "abc1234", "beef123", "fade123")
    rules = {"newest": 2, "order": "first_seen", "max_removed_share": None}
    version = sync(here, registry, build, **rules)
    assert present(here, version) == {"c0ffee1", "fade123"}, "nothing has an order yet, so by name"
    assert sync(here, registry, **rules) is None
    push(build, "aaa0001")
    assert present(here, sync(here, registry, build, **rules)) == {"fade123", "aaa0001"}
    push(build, "aaa0000")
    assert present(here, sync(here, registry, build, **rules)) == {"aaa0001", "aaa0000"}
    build.untag("aaa0001")
    assert present(here, sync(here, registry, build, **rules)) == {"fade123", "aaa0000"}


def test_what_the_repository_holds_when_the_order_begins_came_before_what_is_new(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "b")
    sync(here, registry, build, include_tags=("b",))
    push(build, "z")
    sync(here, registry, build, include_tags=("b", "z"))
    push(build, "y")
    rules = {"include_tags": ("*",), "newest": 2, "order": "first_seen"}
    version = sync(here, registry, build, max_removed_share=None, **rules)
    assert present(here, version) == {"y", "z"}, "y was never held, and is as old as the oldest that was"
    push(build, "a")
    assert present(here, sync(here, registry, build, max_removed_share=None, **rules)) == {"z", "a"}


def test_by_age_a_tag_that_was_seen_long_ago_goes(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "old", "older")
    rules = {"order": "first_seen", "newer_than": "30d", "max_removed_share": None}
    assert present(here, sync(here, registry, build, **rules)) == {"old", "older"}
    with here.database.writing() as connection:
        connection.exec_driver_sql("UPDATE seen_tags SET first_seen_at = '2020-01-01 00:00:00.000000'")
    push(build, "new")
    assert present(here, sync(here, registry, build, **rules)) == {"new"}


# -- by push ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "digest_list"), [({"lists_digests": True}, "auto"), ({"has_digest_api": True}, "quay")], ids=["list", "api"]
)
def test_the_newest_by_push_where_the_registry_lists_it(
    here: Installation, build: ContentBuilder, how: dict[str, bool], digest_list: str
) -> None:
    registry = MemoryRegistry(**how)
    push(build, "a", "b", "c")
    registry.pushed = {"a": 1_700_000_300, "b": 1_700_000_200, "c": 1_700_000_100}
    rules = {"newest": 2, "order": "pushed", "digest_list": digest_list, "max_removed_share": None}
    assert present(here, sync(here, registry, build, **rules)) == {"a", "b"}
    registry.pushed["c"] = 1_700_000_400
    assert present(here, sync(here, registry, **rules)) == {"a", "c"}
    by_age = {**rules, "newest": 3, "newer_than": "2023-11-14T22:18:30Z"}
    assert present(here, sync(here, registry, **by_age)) == {"c"}
    del registry.pushed["b"]
    assert present(here, sync(here, registry, **by_age)) == {"b", "c"}
    assert any("does not list the push of 1 tag, which count as just pushed: b" in w for w in here.lines.warnings)


def test_where_pushes_are_not_listed_it_is_an_error_and_never_another_order(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "1.0", "1.1")
    with pytest.raises(ConfigurationError, match=r"does not list when its tags were pushed\. Name its API as"):
        sync(here, registry, build, newest=1, order="pushed")
    with pytest.raises(ConfigurationError, match="digest_list is off"):
        sync(here, registry, newest=1, order="pushed", digest_list="off")


def test_where_the_list_of_pushes_fails_the_task_tries_again(here: Installation, build: ContentBuilder) -> None:
    registry = MemoryRegistry(has_digest_api=True)
    registry.pushed = {"1.0": 1_700_000_000}
    push(build, "1.0", "1.1")
    registry.serve(NAME, build.content())
    registry.on("GET", "digests", "", refusal(503))
    with pytest.raises(ServerUnavailable, match="could not list when tags were pushed"):
        sync(here, registry, newest=1, order="pushed", digest_list="quay")


# -- digests ------------------------------------------------------------------------------------------------------


def test_a_digest_is_held_under_its_tag_though_upstreams_moves(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "stable", "1.0")
    pinned = build.content().tags["stable"]
    rules = {"digests": [f"stable@{pinned}"], "include_tags": ("1.*",)}
    first = sync(here, registry, build, **rules)
    assert first is not None
    push(build, "stable")
    assert sync(here, registry, build, **rules) is None
    assert dict(here.database.versions.tags(first.repository_id))["stable"] == pinned
    assert not [request for request in registry.log().select("HEAD", "manifest") if request.reference == "stable"]


def test_a_digest_without_a_tag_is_held_under_a_name_of_its_own(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "1.0")
    untagged = build.image([build.blob(40)])
    name = f"{UNTAGGED_PREFIX}{untagged.encoded}"
    version = sync(here, registry, build, digests=[untagged], include_tags=("1.0",))
    assert present(here, version) == {"1.0", name}
    assert sync(here, registry, digests=[untagged], include_tags=("1.0",)) is None
    with pytest.raises(TooManyRemovals, match="1 of 2 tags is not among digests none"):
        sync(here, registry, digests=[], include_tags=("1.0",), max_removed_share=0)


def test_digests_alone_need_no_listing_and_nothing_when_they_are_there(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "1.0", "2.0")
    one = build.content().tags["1.0"]
    rules = {"digests": [f"kept@{one}"], "include_referrers": False}
    assert present(here, sync(here, registry, build, **rules)) == {"kept"}
    assert got(registry) == {one}
    assert sync(here, registry, **rules) is None
    assert not registry.log().requests, "a digest does not move"


def test_a_digest_that_upstream_does_not_have_is_held_and_never_the_tags_own_content(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    push(build, "1.0", "2.0")
    version = sync(here, registry, build, digests=[f"2.0@{Digest.of(b'gone')}"], include_tags=("1.0",))
    assert version is not None
    assert tags(here, version) == {"1.0"}
    assert [hold.tag for hold in version.holds] == ["2.0"]
    assert "manifest unknown" in version.holds[0].reason
