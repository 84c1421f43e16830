"""Rules for tags as options: what is read from JSON and text, what is refused, and what sets of rules select."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.references import TagName
from registry_sync.domain.remote import OPTIONS, RemoteSpec, Typed, read_options, shown_value
from registry_sync.domain.tag_options import RULE_READERS, TagSet, read_tag_sets, rule_value
from registry_sync.domain.tag_rules import CountOf, Newest, TagAge, TagTimes
from registry_sync.errors import ConfigurationError, InvalidReference, RegistrySyncError

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
TAGS = ["latest", "17", "17.2", "17.2-alpine", "17.1", "17.1-alpine", "16.6", "16.6-alpine", "16", "17.3-rc1", "edge"]


def remote(**options: Any) -> RemoteSpec:
    return RemoteSpec.parse("app", "https://registry.example", "team/app", **options)


def selected(*tags: str, times: TagTimes | None = None, **options: Any) -> set[str]:
    return set(remote(**options).tag_filter.select(map(TagName, tags or TAGS), times).tags)


# -- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said", "stored"),
    [
        ("semver", ">=1.2 <2", ">=1.2 <2"),
        ("semver", {"range": ">=1.2"}, ">=1.2"),
        ("semver", {"suffixes": "exclude"}, {"range": "*", "suffixes": "exclude"}),
        ("semver", {"range": "1.x", "prereleases": True}, {"range": "1.x", "prereleases": True}),
        ("semver", {"range": "1.x", "prereleases": ["RC ", "dev"]}, {"range": "1.x", "prereleases": ["dev", "rc"]}),
        ("semver", {"range": "1", "components": 3}, {"range": "1", "components": "3-3"}),
        ("semver", {"range": "1", "components": "2-"}, {"range": "1", "components": "2-"}),
        ("semver", {"range": "1", "version_from": "v(?P<v>.+)"}, {"range": "1", "version_from": "v(?P<v>.+)"}),
        ("newest", 3, 3),
        ("newest", "3", 3),
        ("newest", {"count": 3, "of": "tags"}, {"count": 3, "of": "tags"}),
        ("newer_than", " 90d ", "90d"),
        ("newer_than", "2026-01-31", "2026-01-31"),
        ("newer_than", "1h30m", "1h30m"),
        ("order", "pushed", "pushed"),
        ("regex", ["v\\d{1,3}", ""], ["v\\d{1,3}"]),
        ("regex_all", "a.*\n.*b", ["a.*", ".*b"]),
        ("digests", [{"digest": DIGEST, "tag": "old"}, OTHER, OTHER], [f"old@{DIGEST}", OTHER]),
        ("digests", f"{DIGEST}, x@{OTHER}", [DIGEST, f"x@{OTHER}"]),
        ("include", "3.{1,2}, latest", ["3.{1,2}", "latest"]),
    ],
)
def test_a_rule_is_read_as_typed_and_as_stored(name: str, said: Any, stored: Any) -> None:
    read = RULE_READERS[name]
    value = read(name, said)
    assert rule_value(value) == stored
    assert read(name, stored) == value, "as stored"
    assert read(name, value) == value, "as read already"
    if isinstance(stored, dict):
        assert read(name, json.dumps(stored)) == value, "as text, in a template"


@pytest.mark.parametrize(
    ("name", "said", "reason"),
    [
        ("semver", "one", "cannot be read at 'one'"),
        ("semver", 1.1, "semver is '1.1'; give a range"),
        ("semver", {"range": 1.1}, "semver.range is '1.1', of type float; give text, in quotes"),
        ("semver", {"ranges": "1"}, "semver has no 'ranges'; it has range, suffixes"),
        ("semver", {"range": "1", "suffixes": "some"}, "suffixes is 'some'; it is one of ignore"),
        ("semver", {"range": "1", "components": "0-2"}, "components is '0-2'; give any"),
        ("semver", {"range": "1", "components": True}, "components is 'True'"),
        ("semver", {"range": "1", "components": "3-2"}, "components is '3-2'"),
        ("semver", {"range": "1", "prereleases": "yes"}, "give true, false, or a list of words"),
        ("semver", {"range": "1", "version_from": "(a"}, "not one of RE2"),
        ("semver", '{"range": ', "which is no JSON"),
        ("newest", 0, "newest is '0'; give a number from 1"),
        ("newest", True, "newest is 'True'"),
        ("newest", "many", "newest is 'many'"),
        ("newest", {"count": 3, "of": "images"}, "newest.of is 'images'; it is one of versions, tags"),
        ("newest", [3], "give a number, or an object"),
        ("newer_than", "yesterday", "newer_than is 'yesterday'; give a duration"),
        ("newer_than", "0d", "newer_than is '0d'"),
        ("newer_than", "99999999999d", "newer_than is"),
        ("newer_than", 90, "of type int; give text"),
        ("order", "created", "order is 'created'; it is one of version, first_seen, pushed, name"),
        ("regex", ["(a"], r"regex: the regular expression '\(a' is not one of RE2"),
        ("regex", {"a": 1}, "give a list of regular expressions"),
        ("regex", [1.1], "of type float"),
        ("digests", ["latest"], "'latest' is no digest"),
        ("digests", [f"x@{DIGEST}", f"x@{OTHER}"], "two digests for the tag x"),
        ("digests", ["sha256:abc"], "sha256:abc"),
        ("include", ["{a,b"], "{ without }"),
        ("include", [1.1], "of type float; give text, in quotes"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_to_give(name: str, said: Any, reason: str) -> None:
    with pytest.raises((ConfigurationError, InvalidReference), match=reason):
        RULE_READERS[name](name, said)


def test_a_set_of_rules_names_the_place_of_a_mistake() -> None:
    with pytest.raises(RegistrySyncError, match=r"tag_sets\[1\]\.semver is '3'; give a range"):
        read_tag_sets("tag_sets", [{"include": ["a"]}, {"semver": 3}])
    with pytest.raises(RegistrySyncError, match=r"tag_sets\[0\] has no 'tags'; it has include, exclude, regex"):
        read_tag_sets("tag_sets", [{"tags": ["a"]}])
    with pytest.raises(RegistrySyncError, match="give at most 50"):
        read_tag_sets("tag_sets", [{}] * 51)
    assert read_tag_sets("tag_sets", {"newest": 1}) == (TagSet({"newest": Newest(1)}),), "one alone"
    assert read_tag_sets("tag_sets", '[{"newest": null}]') == (TagSet({"newest": None}),)


def test_rules_that_do_not_fit_together_name_the_option() -> None:
    with pytest.raises(ConfigurationError, match="the order version has no times") as found:
        remote(newer_than="90d")
    assert found.value.option == "newer_than"
    with pytest.raises(ConfigurationError, match="newest counts versions, and order is pushed") as found:
        remote(newest={"count": 1, "of": "versions"}, order="pushed")
    assert found.value.option == "newest"
    with pytest.raises(ConfigurationError, match="first_seen and pushed; use one"):
        remote(tag_sets=[{"newest": 1, "order": "pushed"}, {"newest": 1, "order": "first_seen"}])


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("90d", NOW - timedelta(days=90)),
        ("2w", NOW - timedelta(weeks=2)),
        ("1d12h", NOW - timedelta(hours=36)),
        ("45min", NOW - timedelta(minutes=45)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=timezone.utc)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=timezone.utc)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=timezone.utc)),
    ],
)
def test_an_age_is_a_duration_or_a_date(text: str, since: datetime) -> None:
    assert TagAge(text).since(NOW) == since


def test_how_rules_are_typed_and_shown() -> None:
    full = remote(semver={"range": ">=1", "suffixes": "exclude"}, newest=3, regex=["a", "b"], tag_sets=[{"newest": 1}])
    assert [shown_value(name, full) for name in ("semver", "newest", "regex", "tag_sets", "newer_than")] == [
        '{"range": ">=1", "suffixes": "exclude"}', "3", "a, b", '[{"newest": 1}]', "any age",
    ]  # fmt: skip
    assert full.tag_rules() == [
        "regex a, b", 'semver {"range": ">=1", "suffixes": "exclude"}', "newest 3", 'tag_sets [{"newest": 1}]',
    ]  # fmt: skip
    assert {OPTIONS[name].typed for name in ("semver", "newest", "tag_sets")} == {Typed.JSON}
    assert {OPTIONS[name].typed for name in ("regex", "regex_all", "exclude_regex")} == {Typed.LINES}
    assert RemoteSpec.of_document(json.loads(json.dumps(full.document()))) == full


def test_none_is_not_given_and_stays_none() -> None:
    assert read_options(dict.fromkeys(("semver", "regex", "tag_sets"))) == {
        "semver": None, "regex": None, "tag_sets": None,
    }  # fmt: skip


# -- selection ----------------------------------------------------------------------------------------------------


def test_sets_are_alternatives_and_a_moving_tag_is_pinned_by_name() -> None:
    sets = [{"semver": ">=17", "include": ["*-alpine"], "newest": 1}, {"include": ["17", "16"]}]
    assert selected(tag_sets=sets) == {"17.2-alpine", "17", "16"}


def test_a_set_has_what_it_does_not_say_from_the_remote_and_null_clears_it() -> None:
    sets = [{"newest": 1}, {"include": ["edge"], "semver": None}]
    assert selected(include_tags=("*-alpine",), semver=">=16", tag_sets=sets) == {"17.2-alpine", "edge"}
    assert selected(include_tags=("*-alpine",), tag_sets=[{"include": None, "semver": "16"}]) == {
        "16", "16.6", "16.6-alpine",
    }  # fmt: skip


def test_the_remotes_exclusion_leaves_alone_what_a_set_names_and_a_sets_own_does_not() -> None:
    excluded = {"exclude_tags": ("*-alpine",)}
    assert selected(tag_sets=[{"include": ["17.2-alpine", "17.1*"]}], **excluded) == {"17.2-alpine", "17.1"}
    assert selected(tag_sets=[{"include": ["17.2-alpine"], "exclude": ["17.2*"]}], **excluded) == set()
    assert selected(include_tags=("17.2-alpine",), **excluded) == set(), "without sets its own exclusion beats all"


def test_literal_names_in_all_sets_need_no_listing() -> None:
    rules = remote(tag_sets=[{"include": ["a", "{b,c}"]}, {"include": ["d"]}], exclude_tags=("c",)).tag_filter
    assert rules.literal_tags == ("a", "b", "c", "d"), "what is named outdoes an inherited exclusion"
    assert remote(tag_sets=[{"include": ["a"]}, {"regex": ["b"]}]).tag_filter.literal_tags is None


def test_digests_are_held_under_their_tag_or_a_name_of_their_own() -> None:
    rules = remote(digests=[f"old@{DIGEST}", OTHER]).tag_filter
    assert rules.pinned == {"old": DIGEST, f"digest-{'b' * 64}": OTHER}
    assert rules.literal_tags == (), "digests alone select no tags besides"
    both = remote(digests=[DIGEST], include_tags=("1.*",), tag_sets=[{"digests": [OTHER]}, {"newest": 1}]).tag_filter
    assert set(both.pinned.values()) == {DIGEST, OTHER}
    assert both.literal_tags is None


def test_the_option_that_excludes_a_tag_is_the_first_that_its_name_meets() -> None:
    rules = remote(
        include_tags=("1*",),
        exclude_tags=("*-rc",),
        exclude_regex=["1.*x"],
        regex=["v2"],
        regex_all=["[^b]*"],
        semver=">=1.5",
        digests=[f"p@{DIGEST}"],
    ).tag_filter
    found = {tag: rules.excluding_option(TagName(tag)) for tag in ("1.6", "2", "1-rc", "1x", "1b", "1.4", "p")}
    assert found == {
        "1.6": None, "2": "include_tags", "1-rc": "exclude_tags", "1x": "exclude_regex", "1b": "regex_all",
        "1.4": "semver", "p": None,
    }  # fmt: skip
    assert remote(regex=["a"]).tag_filter.excluding_option(TagName("b")) == "regex"
    sets = remote(tag_sets=[{"include": ["a*"]}, {"include": ["b*"]}], exclude_tags=("*x",)).tag_filter
    found = {tag: sets.excluding_option(TagName(tag)) for tag in ("ab", "bb", "cc", "ax")}
    assert found == {"ab": None, "bb": None, "cc": "tag_sets", "ax": "exclude_tags"}
    assert rules.excluding_option(TagName(f"digest-{'c' * 64}")) == "digests", "one that is held no more"


def test_by_age_what_is_older_is_left_out_unless_it_is_named() -> None:
    seen = {TagName(tag): NOW - timedelta(days=day) for day, tag in enumerate(("a", "b", "c", "d"))}
    times = TagTimes(first_seen_at=seen, pushed_at={TagName("d"): NOW}, now=NOW)
    by = {"newer_than": "36h", "order": "first_seen", "times": times}
    assert selected("a", "b", "c", "d", **by) == {"a", "b"}
    assert selected("a", "b", "c", "d", include_tags=("*", "d"), **by) == {"a", "b", "d"}
    assert selected("a", "b", "d", "new", **(by | {"newer_than": "2026-06-01"})) == {"a", "new"}
    assert selected("a", "d", newest=1, order="pushed", times=times) == {"a"}, "what has no push is just pushed"


def test_newest_may_count_tags_in_the_order_of_versions() -> None:
    assert selected(newest={"count": 3, "of": "tags"}) == {"17.2", "17.2-alpine", "17.3-rc1"}
    assert selected(newest={"count": 1, "of": "versions"}) == selected(newest=1)
    assert Newest(1, CountOf.TAGS) != Newest(1)


_NAMES = st.sampled_from(TAGS)
_SETS = st.fixed_dictionaries(
    {},
    optional={
        "include": st.lists(st.sampled_from(["17*", "*-alpine", "latest", "16", "edge", "{17,16}.*"]), max_size=3),
        "exclude": st.lists(st.sampled_from(["*-rc1", "latest", "16.*"]), max_size=2),
        "regex": st.lists(st.sampled_from([r"17\.\d", "e.*", "latest|edge"]), max_size=2),
        "regex_all": st.lists(st.sampled_from([".*[0-9e].*", ".{2,}"]), max_size=1),
        "exclude_regex": st.lists(st.sampled_from([".*-.*", "1.*6"]), max_size=1),
        "semver": st.sampled_from([">=16", "17.x", "*", {"range": "17", "suffixes": "exclude"}]),
        "newest": st.sampled_from([1, 2, {"count": 2, "of": "tags"}]),
    },
)


@given(st.sets(_NAMES), st.lists(_SETS, min_size=1, max_size=3))
def test_sets_together_select_what_each_selects_alone(tags: set[str], sets: list[dict[str, Any]]) -> None:
    listed = sorted(map(TagName, tags))
    try:
        alone = [set(remote(tag_sets=[one]).tag_filter.select(listed).tags) for one in sets]
    except ConfigurationError:  # the newest of no versions
        return
    assert set(remote(tag_sets=sets).tag_filter.select(listed).tags) == set().union(*alone)


@given(st.sets(_NAMES), _SETS)
def test_a_set_alone_selects_what_the_same_options_of_the_remote_select(tags: set[str], one: dict[str, Any]) -> None:
    listed = sorted(map(TagName, tags))
    names = {"include": "include_tags", "exclude": "exclude_tags"}
    flat = remote(**{names.get(name, name): value for name, value in one.items()})
    try:
        expected = flat.tag_filter.select(listed)
    except ConfigurationError:
        return
    assert remote(tag_sets=[one]).tag_filter.select(listed) == expected
    assert set(expected.tags) <= {tag for tag in listed if flat.tag_filter.wants(tag)}, "a name is judged the same"
    without = RemoteSpec.of_document({**flat.document(), "newest": None})
    assert set(without.tag_filter.select(listed).tags) == {tag for tag in listed if without.tag_filter.wants(tag)}


@given(st.sets(_NAMES), st.sampled_from(["17*", "{16,17}*", "{1{6,7}.*,latest}", "e{dg,}e", "*{-alpine,1}"]))
def test_braces_select_what_their_alternatives_select(tags: set[str], pattern: str) -> None:
    listed = sorted(map(TagName, tags))
    by_hand = {
        "17*": ["17*"],
        "{16,17}*": ["16*", "17*"],
        "{1{6,7}.*,latest}": ["16.*", "17.*", "latest"],
        "e{dg,}e": ["edge", "ee"],
        "*{-alpine,1}": ["*-alpine", "*1"],
    }[pattern]
    one, several = remote(include_tags=(pattern,)).tag_filter, remote(include_tags=by_hand).tag_filter
    assert one.select(listed) == several.select(listed)
    assert one.literal_tags == several.literal_tags
