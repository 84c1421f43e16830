"""Which rules for tags a trigger that is not trusted may set: none that selects what the stored remote does not."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_sync.db.database import Database
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import OPTIONS, Remote, RemoteSpec
from registry_sync.domain.runs import Authority, RunKey, SyncRun
from registry_sync.domain.tag_rules import TagTimes
from registry_sync.errors import ConfigurationError, TriggerRefused
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.trigger_rules import refuse_untrusted
from support.examples import examples
from support.ready_databases import ready_database

PLACE: dict[str, Any] = {"url": "https://registry.example", "upstream_name": "team/app"}
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@dataclass(frozen=True)
class Case:
    """Values of one option: of a stored remote, the same written otherwise, and others that a trigger might request.

    ``needed`` are options that must stand beside it.
    """

    option: str
    stored: Any
    same: Any
    others: tuple[Any, ...]
    needed: Mapping[str, Any]

    def spec(self, **more: Any) -> RemoteSpec:
        return RemoteSpec.parse("app", **PLACE, **{**self.needed, **more})


def case(option: str, stored: Any, same: Any, *others: Any, **needed: Any) -> Case:
    return Case(option, stored, same, others, needed)


CASES = [
    case("regex", ("3[.].*",), "3[.].*\n", ("3[.]1",), ("3[.].*", "4[.].*"), ".*", ()),
    case("regex_all", (".*-alpine",), ".*-alpine", (".*-alpine", "3.*"), (".*",), ()),
    case("exclude_regex", (".*rc.*",), ".*rc.*\n\n", (".*rc.*", "3.*"), ("x",), ()),
    case(
        "semver", ">=1.2 <2", {"range": ">=1.2 <2"}, ">=1.3 <2", ">=1", "*", {"range": ">=1.2 <2", "prereleases": True}
    ),
    case("newest", 3, "3", 2, 4, {"count": 3, "of": "tags"}, {"count": 1_000_000}),
    case("order", "name", "name", "version", "first_seen", newest=3),
    case("newer_than", "90d", " 90d ", "89d", "91d", "2020-01-01", order="first_seen"),
    case("digests", (f"stable@{DIGEST}",), f" stable@{DIGEST},", (f"stable@{OTHER}",), (DIGEST,), ()),
    case("tag_sets", ({"include": ["3.*"]},), '{"include": "3.*"}', ({"include": ["3.1"]},), [{}], ()),
]
each_option = pytest.mark.parametrize("case", CASES, ids=lambda case: case.option)
each_mode = pytest.mark.parametrize("mode", [mode.value for mode in SyncMode])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield database


def by_trigger(database: Database, run_id: str, request: SyncRequest) -> SyncRun:
    return open_run(database, RunKey("registry_sync", run_id), request, authority=Authority.TRIGGER)


def test_each_rule_for_tags_has_its_cases() -> None:
    names = list(OPTIONS)
    assert [case.option for case in CASES] == names[names.index("regex") : names.index("tag_sets") + 1]


# -- one option --------------------------------------------------------------------------------------------------------


@each_option
@each_mode
def test_a_rule_that_the_remote_does_not_have_is_refused(database: Database, case: Case, mode: str) -> None:
    """Also one that would narrow: a mirror would remove what it excludes, and the newest would be others."""
    remote = database.remotes.create(case.spec())
    for value in (case.stored, *case.others):
        if case.spec() == case.spec(**{case.option: value}):
            continue
        request = SyncRequest("app", remote="app", mode=mode, options={case.option: value})
        with pytest.raises(TriggerRefused, match=f"{case.option} would differ from that of remote 'app'"):
            by_trigger(database, "one", request)
    assert database.remotes.get(remote.id) == remote
    assert database.runs.page().total_count == 0


@each_option
@each_mode
def test_the_rule_as_it_is_stored_is_no_change(database: Database, case: Case, mode: str) -> None:
    """In the same words, in others, and where a trigger gives null, which is nothing given."""
    stored = case.spec(**{case.option: case.stored})
    database.remotes.create(stored)
    for number, value in enumerate((case.stored, case.same, None)):
        request = SyncRequest("app", remote="app", mode=mode, options={case.option: value})
        run = by_trigger(database, f"{number}", request)
        assert (run.authority, run.remote) == (Authority.TRIGGER, stored)


@each_option
@each_mode
def test_another_value_of_a_stored_rule_is_refused(database: Database, case: Case, mode: str) -> None:
    """Narrower, wider and none at all: a trigger narrows by ``tags`` and ``exclude_tags``."""
    remote = database.remotes.create(case.spec(**{case.option: case.stored}))
    assert case.others
    for value in case.others:
        request = SyncRequest("app", remote="app", mode=mode, options={case.option: value})
        with pytest.raises(TriggerRefused, match=f"{case.option} would differ from that of remote 'app'"):
            by_trigger(database, "one", request)
    assert database.remotes.get(remote.id) == remote


@each_option
def test_a_described_remote_keeps_its_rules(database: Database, case: Case) -> None:
    """With its upstream a request would change the stored remote, of which a trigger changes nothing."""
    stored = case.spec(**{case.option: case.stored})
    remote = database.remotes.create(stored)
    for value in case.others:
        request = SyncRequest("app", **PLACE, options={case.option: value}, mode="additive")
        with pytest.raises(TriggerRefused, match=f"{case.option} of remote 'app' would change"):
            by_trigger(database, "one", request)
    assert by_trigger(database, "two", SyncRequest("app", **PLACE, options={case.option: case.same})).remote == stored
    assert database.remotes.get(remote.id) == remote


@each_option
def test_a_new_remote_of_a_trigger_has_any_rule(database: Database, case: Case) -> None:
    options = {**case.needed, case.option: case.stored}
    run = by_trigger(database, "one", SyncRequest("app", **PLACE, options=options))
    assert run.remote == case.spec(**{case.option: case.stored}) == database.remotes.by_name("app").spec


# -- names and globs beside the other rules ----------------------------------------------------------------------------

NARROWING: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("a glob narrows every tag", {}, {"include_tags": ("1.*",)}, True),
    ("a glob narrows versions", {"semver": ">=1"}, {"include_tags": ("1.*",)}, True),
    ("an exclusion narrows versions", {"semver": ">=1"}, {"exclude_tags": ("1.*",)}, True),
    ("a version is selected by its name", {"semver": ">=1"}, {"include_tags": ("1.5",)}, True),
    ("an exact name skips versions", {"semver": ">=1"}, {"include_tags": ("0.9",)}, False),
    ("so it does in braces", {"semver": ">=1"}, {"include_tags": ("{1.*,0.9}",)}, False),
    ("and where all must match", {"regex_all": ("1.*",)}, {"include_tags": ("{0.9,1*}",)}, False),
    ("braces of what is selected", {"semver": ">=1"}, {"include_tags": ("{1.*,1.5}",)}, True),
    ("a part of stored braces", {"include_tags": ("{1.*,0.9}",), "semver": ">=1"}, {"include_tags": ("0.9",)}, True),
    ("a glob adds to expressions", {"regex": ("1.*",)}, {"include_tags": ("1.*",)}, False),
    ("a name that an expression selects", {"regex": ("1.*",)}, {"include_tags": ("1.5",)}, True),
    ("a name that none selects", {"regex": ("1.*",)}, {"include_tags": ("2.0",)}, False),
    ("a name that is excluded", {"exclude_regex": ("1.*",)}, {"include_tags": ("1.5",)}, False),
    ("digests alone select no tags", {"digests": (DIGEST,)}, {"include_tags": ("*",)}, False),
    ("digests alone select no names", {"digests": (DIGEST,)}, {"include_tags": ("1.5",)}, False),
    ("digests beside versions", {"digests": (DIGEST,), "semver": "*"}, {"include_tags": ("1.*",)}, True),
    ("the name of a held digest", {"digests": (f"old@{DIGEST}",)}, {"include_tags": ("old",)}, True),
    ("others would be the newest", {"newest": 2}, {"include_tags": ("1.*",)}, False),
    ("others would take the places", {"newest": 2}, {"exclude_tags": ("2.*",)}, False),
    ("a name skips the newest", {"newest": 2}, {"include_tags": ("0.9",)}, False),
    ("names beside the newest", {"include_tags": ("a", "1.*"), "newest": 2}, {"include_tags": ("a",)}, True),
    ("fewer globs of the newest", {"include_tags": ("1.*", "2.*"), "newest": 2}, {"include_tags": ("1.*",)}, False),
    ("an age is of each tag", {"newer_than": "9d", "order": "first_seen"}, {"include_tags": ("1.*",)}, True),
    ("a name skips the age", {"newer_than": "9d", "order": "first_seen"}, {"include_tags": ("1.5",)}, False),
    ("a glob within sets", {"tag_sets": ({"include": ["1.*"]},)}, {"include_tags": ("1.5",)}, False),
    ("an exclusion from sets", {"tag_sets": ({"newest": 2},)}, {"exclude_tags": ("1.5",)}, False),
]


@pytest.mark.parametrize(
    ("stored", "requested", "is_allowed"), [line[1:] for line in NARROWING], ids=[line[0] for line in NARROWING]
)
def test_names_and_globs_narrow_what_the_other_rules_leave(
    stored: dict[str, Any], requested: dict[str, Any], is_allowed: bool
) -> None:
    spec = RemoteSpec.parse("app", **PLACE, **stored)
    assert is_permitted(spec, requested) is is_allowed
    assert not is_permitted(spec, requested, SyncMode.MIRROR), "which would remove the others"


def is_permitted(spec: RemoteSpec, options: dict[str, Any], mode: SyncMode = SyncMode.ADDITIVE) -> bool:
    """Whether a trigger may sync that stored remote with these options."""
    request = SyncRequest("app", remote="app", mode=mode.value, options=options)
    remote = Remote("id", spec, NOW, NOW)
    used = spec.changed(**request.overrides())
    try:
        refuse_untrusted(request, mode=mode, stored=remote, used=used, repository=None, latest=None)
    except TriggerRefused:
        return False
    return True


TAGS = ("0.9", "1.0", "1.5", "1.5-alpine", "2.0", "2.0-rc1", "a", "latest")
GLOBS = ("*", "1.*", "2*", "{1.0,2.*}", "{0.9,a}", "{1.5,l*}", "[0-9]*")
_patterns = st.lists(st.sampled_from((*TAGS, *GLOBS)), max_size=3).map(tuple)
_regexes = st.lists(st.sampled_from(("1.*", "[0-9].*", ".*a.*", ".*")), max_size=2).map(tuple)
_STORED: tuple[st.SearchStrategy[dict[str, Any]], ...] = (
    st.fixed_dictionaries({"include_tags": _patterns}),
    st.fixed_dictionaries({"exclude_tags": _patterns}),
    st.sampled_from(("regex", "regex_all", "exclude_regex")).flatmap(
        lambda name: st.fixed_dictionaries({name: _regexes})
    ),
    st.fixed_dictionaries({"semver": st.sampled_from((">=1", "<2", "*"))}),
    st.fixed_dictionaries(
        {"newest": st.sampled_from((1, 2, {"count": 2, "of": "tags"}))},
        optional={"order": st.sampled_from(("first_seen", "name"))},
    ),
    st.just({"newer_than": "9d", "order": "first_seen"}),
    st.fixed_dictionaries({"digests": st.sampled_from(((DIGEST,), (f"a@{OTHER}",)))}),
    st.fixed_dictionaries({"tag_sets": st.sampled_from(([{"include": ["1.*"]}], [{"newest": 1}, {"regex": ["2.*"]}]))}),
)
_TIMES = st.fixed_dictionaries({tag: st.integers(0, 20) for tag in TAGS})


def selected(spec: RemoteSpec, listed: set[str], ages: Mapping[str, int]) -> set[str]:
    seen = {TagName(tag): NOW - timedelta(days=age) for tag, age in ages.items()}
    found = spec.tag_filter.select(map(TagName, sorted(listed)), TagTimes(first_seen_at=seen, now=NOW))
    return {*found.tags, *spec.tag_filter.pinned}


@pytest.mark.slow
@given(
    stored=st.lists(st.one_of(_STORED), max_size=2),
    requested=st.fixed_dictionaries({}, optional={"include_tags": _patterns, "exclude_tags": _patterns}),
    listed=st.sets(st.sampled_from(TAGS), min_size=1),
    ages=_TIMES,
)
@settings(**examples(400))
def test_whatever_a_trigger_may_request_selects_nothing_more(
    stored: list[dict[str, Any]], requested: dict[str, Any], listed: set[str], ages: dict[str, int]
) -> None:
    try:
        spec = RemoteSpec.parse("app", **PLACE, **dict(ChainMap(*stored)))
        used = spec.changed(**SyncRequest("app", remote="app", options=requested).overrides())
        theirs = selected(spec, listed, ages)
    except ConfigurationError:  # rules that do not fit together, or that cannot be applied to these tags
        return
    if is_permitted(spec, requested):
        assert selected(used, listed, ages) <= theirs
