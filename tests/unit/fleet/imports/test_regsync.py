"""Files of ``regsync``, imported."""

from __future__ import annotations

import pytest

from .conftest import Import

DIGEST = "sha256:" + "5d" * 32
FILE = f"""\
version: 1
x-set: &set
  allow: [latest, 'v\\d+\\.\\d+', 1.2|edge]
  deny: ['.*-rc']
creds:
  - {{registry: quay.io, user: '{{{{env "QUAY_USER"}}}}', pass: hunter2, reqPerSec: 5, mirrors: [m.example.net]}}
  - {{registry: "plain.example.net:5000", tls: disabled}}
  - {{registry: odd.example.net, tls: insecure, pass: '{{{{file "/run/pass"}}}}'}}
defaults:
  interval: 90m
  type: image
  referrers: true
  digestTags: true
sync:
  - {{source: busybox:1.36, target: r.example.net/library/busybox:1.36, type: image}}
  - {{source: "busybox:1.37", target: "r.example.net/library/busybox:1.37", type: image, tags: {{allow: [x]}}}}
  - {{source: "busybox@{DIGEST}", target: "s.example.net/library/busybox:pinned", type: image}}
  - source: quay.io/a/b
    target: '{{{{env "TARGET"}}}}/a/b'
    type: repository
    tags: {{<<: *set, deny: [1.2-rc, '.*-rc']}}
    platform: linux/arm64
    schedule: "CRON_TZ=Europe/Berlin 15 3 * * *"
  - source: plain.example.net:5000/x/y
    target: r.example.net/y/{{{{env "TEAM"}}}}
    type: repository
    tagSets: [{{semverRange: [">=1.25", "<2"], deny: ['.*-alpine']}}, {{allow: ['release-\\d+']}}]
    hooks: {{pre: {{type: script}}}}
    backup: "old-{{{{.Ref.Tag}}}}"
    digestTags: false
  - {{source: odd.example.net/o, target: r.example.net/o, type: repository, schedule: "@every 1h30m"}}
  - {{source: quay.io, target: r.example.net, type: registry}}
  - {{source: 'quay.io/{{{{.X}}}}', target: r.example.net/o, type: image}}
  - {{source: quay.io/c/d, target: r.example.net/c/d, type: repository, tags: {{semverRange: [">= 1"]}}}}
"""


def test_images_of_one_repository_fold_into_one_mirror(imported: Import) -> None:
    made = imported(FILE, TEAM="web")
    assert made.options("library/busybox") == {"include_tags": ["1.36", "1.37"], "digests": [f"pinned@{DIGEST}"]}
    assert "2 entries were folded" in made.said()
    assert "nobody fills r.example.net any more" in made.said()
    assert "nobody fills s.example.net any more" in made.said()


def test_rules_for_tags_keep_their_meaning(imported: Import) -> None:
    made = imported(FILE, TEAM="web")
    tags = ["latest", "v1.2", "1.2", "1.2-rc", "1.2.3", "old-edge", "edge", "v1", "v1.2-x"]
    assert made.selected("a/b", tags) == ["1.2", "1.2.3", "edge", "latest", "old-edge", "v1.2"]
    tags = ["1.24", "1.25", "1.25-x", "1.25.1-x", "1.26-alpine", "release-7", "2", "20230101"]
    assert made.selected("y/web", tags) == ["1.25", "1.25.1-x", "release-7"]


def test_schedules_platforms_and_registries(imported: Import) -> None:
    made = imported(FILE, TEAM="web")
    schedules = {mirror.repository: mirror.schedule for mirror in made.fleet.mirrors}
    found = {
        name: (one.cron, one.interval and one.interval.seconds, one.timezone)
        for name, one in schedules.items()
        if one is not None
    }
    assert found == {
        "library/busybox": (None, 5400, "UTC"),
        "a/b": ("15 3 * * *", None, "Europe/Berlin"),
        "y/web": (None, 5400, "UTC"),
        "o": (None, 5400, "UTC"),
    }
    remotes = {mirror.repository: mirror.remote for mirror in made.fleet.mirrors if mirror.remote}
    assert list(map(str, remotes["a/b"].platforms or ())) == ["linux/arm64"]
    assert str(remotes["y/web"].url) == "http://plain.example.net:5000"
    assert remotes["o"].ssl_validation is False
    assert (remotes["a/b"].conn_id, remotes["o"].conn_id) == ("quay_io", "odd_example_net")
    assert all(remote.include_referrers for remote in remotes.values())


def test_what_cannot_be_carried_over_is_said_with_its_line(imported: Import) -> None:
    made = imported(FILE, TEAM="web")
    for line, text in (
        (3, "probably '1.2|edge' was meant"),
        (6, "quay.io: mirrors has no counterpart"),
        (8, "odd.example.net: ssl_validation is false"),
        (11, "defaults in regsync's file has no key 'type'"),
        (16, "regsync ignores tags of an entry of type image"),
        (22, "the tag keeps the index's digest here"),
        (28, "hooks are never run by regsync"),
        (32, "all repositories of quay.io have no counterpart"),
        (33, "the template 'quay.io/{{.X}}' in source has no counterpart"),
        (34, "regsync itself refuses the range '>= 1'"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text
    for text in ("backup is not needed", "TEAM there", "login from the variable QUAY_USER", "requests_per_second 5"):
        assert text in made.said()
    assert "set TARGET" not in made.said()
    assert "hunter2" not in made.said() + made.result.text


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{source: quay.io/a/b, target: r.io/a/b, type: repository, interval: 10s}", "1m"),
        ("{source: quay.io/a/b, target: r.io/a/b, type: repository, interval: 24h}", "24h"),
        ("{source: quay.io/a/b, target: r.io/a/b, type: repository, schedule: '@midnight'}", "'@daily'"),
    ],
)
def test_times_of_go(imported: Import, entry: str, expected: str) -> None:
    assert f"schedule: {expected}" in imported(f"version: 1\nsync: [{entry}]\n").result.text


def test_without_a_schedule_it_is_synced_by_hand(imported: Import) -> None:
    made = imported("version: 1\nsync: [{source: 'quay.io/a/b:x', target: 'r.io/a/b:y', type: image}]\n")
    assert made.mirror("a/b").schedule is None
    said = made.said()
    assert "`regsync server` ignores it" in said
    assert "the tag x becomes y there; here tags keep their names" in said


def test_a_login_with_a_path_or_a_scheme_is_one_of_its_host(imported: Import) -> None:
    done = imported("""\
        version: 1
        creds:
          - {registry: quay.io/team, user: bot, pass: x}
          - {registry: "http://plain.example.net:5000/v2", user: bot, pass: x}
        sync:
          - {source: quay.io/team/a, target: r.example.net/a, type: repository}
          - {source: "plain.example.net:5000/b", target: r.example.net/b, type: repository}
        """)
    assert "quay.io needs a connection 'quay_io' of type registry with host quay.io:" in done.said()
    remote = done.mirror("b").remote
    assert remote is not None
    assert str(remote.url) == "http://plain.example.net:5000"


def test_a_file_of_entries_alone_is_one_of_regsync(imported: Import) -> None:
    made = imported(
        """\
        ---
        sync:
          - source: 'debian:{{ env "DEBIAN" }}'
            target: '{{ env "TARGET" }}/library/debian:{{ env "DEBIAN" }}'
            type: image
        """,
        DEBIAN="12",
        TARGET="r.io",
    )
    assert made.mirror("library/debian").remote is not None


def test_a_target_may_be_named_by_its_source(imported: Import) -> None:
    made = imported("""\
        version: 1
        x-hub: &hub {target: 'r.io:5000/hub/{{ .Sync.Source }}'}
        sync:
          - {<<: *hub, source: alpine, type: repository, tags: {allow: [3, 3.10, latest]}}
          - {<<: *hub, source: quay.io/a/b, type: repository}
        """)
    remote = made.mirror("hub/alpine").remote
    assert remote is not None
    assert remote.include_tags == ("3", "3.10", "latest")
    assert made.mirror("hub/quay.io/a/b")


def test_a_target_may_be_named_by_a_part_of_its_source(imported: Import) -> None:
    made = imported("""\
        version: 1
        x-gcr: &gcr {target: 'r.io:5000/gcr/{{ index (split .Sync.Source "gcr.io/") 1 }}'}
        sync:
          - {<<: *gcr, source: gcr.io/a/b, type: repository}
          - {<<: *gcr, source: quay.io/c/d, type: repository}
          - {source: gcr.io/e/f, target: 'r.io/{{ lower (index (split .Sync.Source "/") 2) }}', type: repository}
          - {source: gcr.io/g/h, target: 'r.io/{{- index (split .Sync.Source `/`) 2 -}}/x', type: repository}
        """)
    assert {name for name in ("gcr/a/b", "h/x") if made.mirror(name)} == {"gcr/a/b", "h/x"}
    assert made.result.mirror_count == 2
    assert "is no part of the source 'quay.io/c/d'" in made.said()
    assert "the template 'r.io/{{ lower (index" in made.said()


def test_a_registry_that_was_only_filled_needs_no_connection(imported: Import) -> None:
    made = imported("""\
        creds:
          - {registry: filled.example.net, user: ana, pass: hunter2}
          - {registry: quay.io, user: eva, pass: hunter3}
        sync:
          - {source: quay.io/a/b, target: filled.example.net/a/b, type: repository}
        """)
    assert "filled.example.net needs a connection" not in made.said()
    assert "quay.io needs a connection" in made.said()
