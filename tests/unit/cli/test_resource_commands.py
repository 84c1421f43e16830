"""Repositories and remotes are created, changed and deleted; what is typed is checked as over REST."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from registry_sync.cli.arguments import REMOTE_OPTIONS
from registry_sync.db.database import Database
from registry_sync.domain.remote import OPTIONS, SYNC_OPTIONS, DigestList, Policy, parameter_name
from registry_sync.domain.tag_rules import Newest, TagOrder
from support.commands import Run

PLACE = ("--url", "https://registry.example", "--upstream-name", "library/app")


def shown(run: Run, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    run(*words, "--output", "json")
    return json.loads(capsys.readouterr().out)


def test_a_repository_is_created_changed_and_deleted(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    made = shown(run, capsys, "repository", "create", "app", "--description", "ours", "--label", "team=a")
    assert (made["name"], made["labels"], made["latest_version"]) == ("app", {"team": "a"}, None)
    run("repository", "update", "app", "--name", "apps", "--retain-versions", "3", "--label", "team=", "--label", "b=c")
    spec = database.repositories.by_name("apps").spec
    assert (spec.description, spec.retain_versions, spec.labels) == ("ours", 3, {"b": "c"})
    run("repository", "update", "apps", "--retain-versions", "0", "--description", "")
    spec = database.repositories.by_name("apps").spec
    assert (spec.description, spec.retain_versions) == (None, None)
    with pytest.raises(SystemExit, match="there is a repository 'apps' already"):
        run("repository", "create", "apps")
    run("repository", "delete", "apps", "--yes")
    assert database.repositories.page().total_count == 0


def test_a_remote_is_created_with_options_and_changed_one_by_one(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    run("remote", "create", "app", *PLACE, "--tag", "3.*", "--tag", "latest", "--platform", "linux/amd64",
        "--include-referrers", "false", "--max-total-bytes", "1000", "--set", "max_removed_share=0.25",
        "--set", "allow-sparse=true", "--label", "team=a")  # fmt: skip
    spec = database.remotes.by_name("app").spec
    assert (spec.include_tags, list(map(str, spec.platforms or ()))) == (("3.*", "latest"), ["linux/amd64"])
    assert (spec.include_referrers, spec.allow_sparse, spec.max_total_bytes) == (False, True, 1000)
    assert (spec.max_removed_share, spec.labels) == (0.25, {"team": "a"})
    run("remote", "update", "app", "--name", "apps", "--policy", "on_demand", "--tag", "none", "--set", "platforms=",
        "--set", "max_total_bytes=none", "--set", "max_removed_share=none")  # fmt: skip
    changed = database.remotes.by_name("apps").spec
    assert (changed.policy.value, changed.include_tags, changed.platforms) == ("on_demand", None, None)
    assert (changed.max_total_bytes, changed.max_removed_share, changed.allow_sparse) == (None, None, True)
    assert [row["name"] for row in shown(run, capsys, "remote", "list")] == ["apps"]


def test_rules_for_tags_are_typed_as_they_are_sent(run: Run, database: Database) -> None:
    run("remote", "create", "app", *PLACE, "--tag", "3.{1,2}*", "--regex", r"v\d{1,3}", "--regex", "e,f", "--semver",
        '{"range": ">=3", "suffixes": "exclude"}', "--newest", "3", "--order", "first_seen", "--newer-than", "90d",
        "--digest", f"old@sha256:{'a' * 64}", "--tag-sets", '[{"newest": null}]')  # fmt: skip
    spec = database.remotes.by_name("app").spec
    assert (spec.include_tags, spec.regex) == (("3.{1,2}*",), (r"v\d{1,3}", "e,f"))
    assert spec.document()["semver"] == {"range": ">=3", "suffixes": "exclude"}
    assert (spec.newest, spec.order.value, spec.newer_than) == (Newest(3), "first_seen", "90d")
    assert spec.document()["tag_sets"] == [{"newest": None}]
    run("remote", "update", "app", "--semver", "", "--set", "newest=none", "--newer-than", "none", "--set",
        "regex=a,b", "--set", "tags=1.{1,2},x", "--tag-sets", "[]", "--set", "digests=")  # fmt: skip
    changed = database.remotes.by_name("app").spec
    assert (changed.semver, changed.newest, changed.newer_than, changed.tag_sets, changed.digests) == (
        None, None, None, (), (),
    )  # fmt: skip
    assert (changed.regex, changed.include_tags) == (("a,b",), ("1.{1,2}", "x"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "b", "--url", "https://registry.example"), "--upstream-name is missing"),
        (("create", "b", *PLACE, "--set", "polici=x"), "a remote has no option 'polici'; it has allow_schema1, "),
        (("create", "b", *PLACE, "--set", "max_held_share=2"), "max_held_share is 2.0; give a number from 0 to 1"),
        (("create", "b", *PLACE, "--set", "max_held_share=many"), "max_held_share is 'many'; give a number"),
        (("create", "b", *PLACE, "--max-total-bytes", "0"), "max_total_bytes is 0; give a number from 1"),
        (("create", "b", *PLACE, "--set", "max_removed_tags=-1"), "max_removed_tags is '-1'; give a number"),
        (("create", "b", *PLACE, "--platform", "linux"), "linux"),
        (("create", "b", *PLACE, "--set", "policy=none"), "policy is 'none'"),
        (("create", "b", *PLACE, "--conn-id", "registry_sync_remote_x_1"), "belongs to the remote it was made for"),
        (("update", "ap", "--policy", "streamed"), "there is no remote 'ap'; did you mean 'app'?"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    run: Run, database: Database, words: tuple[str, ...], said: str
) -> None:
    run("remote", "create", "app", *PLACE)
    with pytest.raises(SystemExit, match=re.escape(said)):
        run("remote", *words)
    assert [remote.spec.name for remote in database.remotes.page().items] == ["app"]


def test_the_commands_have_an_option_for_each_parameter_of_a_sync() -> None:
    assert REMOTE_OPTIONS.keys() == {parameter_name(name) for name in SYNC_OPTIONS}
    assert SYNC_OPTIONS.keys() < OPTIONS.keys(), "the others are set with --set"
    choices = {"policy": Policy, "digest_list": DigestList, "order": TagOrder}
    for name, kind in choices.items():
        assert REMOTE_OPTIONS[name].kwargs["choices"] == tuple(kind), name
