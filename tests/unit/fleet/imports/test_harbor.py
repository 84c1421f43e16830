"""Replication policies of Harbor, imported."""

from __future__ import annotations

import pytest

from registry_sync.fleet.imports.harbor import expanded, glob_expression

from .conftest import Import

FILE = """\
[
  {"name": "hub", "description": "for ${TEAM}", "enabled": false,
   "src_registry": {"id": 3, "url": "https://hub.docker.com", "insecure": true,
     "credential": {"access_key": "bot", "access_secret": "hunter2"}},
   "dest_namespace": "m",
   "filters": [
     {"type": "name", "value": "library/{web,db}"},
     {"type": "tag", "value": "1.?", "decoration": "matches"},
     {"type": "label", "value": ["a"]}, {"type": "resource", "value": "image"}],
   "trigger": {"type": "scheduled", "trigger_settings": {"cron": "0 15 2 * * *"}}, "override": false, "speed": 100},
  {"name": "both", "src_registry": {"id": 4, "url": "http://u:hunter2@reg.example.net:8080"}, "override": true,
   "dest_namespace": "x/y", "dest_namespace_replace_count": 1,
   "filters": [{"type": "name", "value": "a/b/c"}, {"type": "tag", "value": "v*"},
     {"type": "tag", "value": "{v1,*-[^r]*}"},
     {"type": "tag", "value": "*-rc", "decoration": "excludes"}],
   "trigger": {"type": "event_based"}, "deletion": true},
  {"name": "push", "dest_registry": {"id": 5, "url": "https://far.example.net"},
   "filters": [{"type": "name", "value": "a/b"}]},
  {"name": "by-id", "src_registry": {"id": 7}, "filters": [{"type": "name", "value": "a/b"}]},
  {"name": "globs", "src_registry": {"url": "https://quay.io"}, "overide": 1,
   "filters": [{"type": "name", "value": "team/**"}]},
  {"name": "all", "src_registry": {"url": "https://quay.io"}, "filters": []},
  {"name": "class", "src_registry": {"url": "https://quay.io"},
   "filters": [{"type": "name", "value": "a/b"}, {"type": "tag", "value": "[!v]*"}]}
]
"""


def test_policies_that_pull_become_mirrors(imported: Import) -> None:
    made = imported(FILE)
    assert [mirror.repository for mirror in made.fleet.mirrors] == ["m/web", "m/db", "x/y/b/c"]
    assert made.options("m/web") == {"include_tags": ["1.?"]}
    assert made.selected("x/y/b/c", ["v1", "v2", "v2-x", "v2-rx", "v1-x-rc", "w-x"]) == ["v1", "v2-x"]
    web, both = made.mirror("m/web"), made.mirror("x/y/b/c")
    assert web.schedule is not None
    assert (web.schedule.cron, web.is_enabled, web.description) == ("15 2 * * *", False, "for ${TEAM}")
    assert (both.schedule, both.is_enabled) == (None, True)
    assert web.remote is not None
    assert both.remote is not None
    assert (web.remote.source, web.remote.ssl_validation) == ("registry-1.docker.io/library/web", False)
    assert (web.remote.conn_id, str(both.remote.url)) == ("docker_io", "http://reg.example.net:8080")


def test_what_cannot_be_carried_over_is_said_with_its_line(imported: Import) -> None:
    made = imported(FILE)
    for line, text in (
        (10, "without override Harbor leaves a tag that moves as it was"),
        (3, "ssl_validation is false"),
        (9, "filters of labels have no counterpart"),
        (9, "resource: image has no counterpart"),
        (10, "speed has no counterpart"),
        (16, "event_based has no counterpart"),
        (16, "deletion follows single events"),
        (17, "push is left out: it pushes to another registry"),
        (19, "by-id is left out: the registry is known by an id or a name alone"),
        (20, "'team/**' selects repositories by a glob"),
        (20, "has no key 'overide'"),
        (22, "all is left out: it has no filter of names"),
        (24, "class is left out: the pattern '[!v]*' has [!"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text
    assert "login 'bot' and the secret as in line 4" in made.said()
    assert "hunter2" not in made.said() + made.result.text


def test_files_of_the_command_line_are_read_as_well(imported: Import) -> None:
    made = imported(
        """
        replication_mode: Pull
        target_registry: {url: "https://quay.io"}
        replication_filter: {name: a/b, tag: "1.10"}
        dest_namespace: a
        dest_namespace_replace_count: 5
        override: true
        """
    )
    assert made.options("a/b") == {"include_tags": ["1.10"]}
    assert "a/b has no 5 parts to replace" in made.said()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("a/b", ["a/b"]), ("{a,b}/{c,d}", ["a/c", "a/d", "b/c", "b/d"]), ("x{,y}", ["x", "xy"])],
)
def test_braces_of_names_are_expanded(pattern: str, names: list[str]) -> None:
    assert expanded(pattern) == names


@pytest.mark.parametrize(
    ("glob", "expression"),
    [("1.*", r"1\..*"), ("v?-[!a]", "v.-[^a]"), ("{a,b}*", "(?:a.*|b.*)"), ("1.10", r"1\.10")],
)
def test_globs_are_expressions_of_the_same_tags(glob: str, expression: str) -> None:
    assert glob_expression(glob) == expression
