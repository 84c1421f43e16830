"""Files of dregsy, imported."""

from __future__ import annotations

import pytest

from .conftest import Import

FILE = """\
relay: skopeo
mappings_file: x
tasks:
- name: hub
  interval: 3600
  source: {registry: registry.hub.docker.com, auth: aHVudGVyMg==, lister: {type: index, search: x}}
  target: {registry: "127.0.0.1:5000", auth: none, skip-tls-verify: true}
  mappings:
  - from: busybox
    to: prune/busybox
    tags: ['semver: >=1.31.0 <1.31.9', 'keep: .+(glibc|musl)', 'keep: !.*-rc', latest, 1.10]
    platform: all
  - from: library/web
    to: regex:^library/(.+),m/$1
    tags: ['regex: 1\\.2.*|edge', 'regex: !.*-x', 'keep: latest 3']
    platform: linux/arm64
  - {from: 'regex:jenkins/.*', to: 'regex:jenkins/,m/'}
  - {from: a/b, to: 'regex:b(,c'}
  - {from: a/c, tags: ['semver: >=1.2', 'semver: ^1.2.3']}
  - {from: a/d, tags: ['sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa']}
- name: once
  source: {registry: reg.example.net, skip-tls-verify: true, auth-refresh: 10h}
  target: {registry: r.example}
  mappings: [{from: /e/f/}]
- {name: bad, source: {}, target: {registry: r.example}, mappings: []}
"""
EVERY = [
    "1.24.0",
    "1.25.0",
    "1.25.0-rc.1",
    "1.25.3-alpine",
    "1.25.3.2",
    "1.26.0-rc1",
    "2",
    "2.0.0-rc1",
    "v1",
    "v1.26.0",
]
TAGS = ["1.31.1-glibc", "1.31.1-glibc-rc", "1.31.1", "1.31.9-musl", "latest", "1.10", "1.11"]


def test_tasks_become_mirrors(imported: Import) -> None:
    made = imported(FILE)
    names = [mirror.repository for mirror in made.fleet.mirrors]
    assert names == ["prune/busybox", "m/web", "a/d", "e/f"]
    assert made.selected("prune/busybox", TAGS) == ["1.10", "1.31.1-glibc", "1.31.9-musl", "latest"]
    assert made.options("a/d") == {"digests": [f"sha256:{'a' * 64}"]}
    busybox, web, once = made.mirror("prune/busybox"), made.mirror("m/web"), made.mirror("e/f")
    assert busybox.remote is not None
    assert web.remote is not None
    assert once.remote is not None
    assert busybox.remote.source == "registry-1.docker.io/library/busybox"
    assert (busybox.remote.platforms, [str(one) for one in web.remote.platforms or ()]) == (None, ["linux/arm64"])
    assert busybox.schedule is not None
    assert (busybox.schedule.cron, once.schedule) == ("0 * * * *", None)
    assert (once.remote.ssl_validation, once.remote.conn_id) == (False, "reg_example_net")


def test_what_dregsy_says_and_a_mirror_cannot_is_said_with_its_line(imported: Import) -> None:
    made = imported(FILE)
    for line, text in (
        (2, "has no key 'mappings_file'"),
        (15, "keep: latest is of each of several rules here"),
        (16, "platform: the tag keeps the index's digest here"),
        (17, "'regex:jenkins/.*' selects repositories by an expression"),
        (18, "cannot be applied to a/b"),
        (19, "dregsy itself refuses '1.2' in a range: it needs three numbers"),
        (19, "dregsy itself refuses the range"),
        (19, "nothing that tags select can be read; the mapping is left out"),
        (22, "ssl_validation is false"),
        (25, "source has no registry; the task is left out"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text
    assert "login and the password that auth of this line has in base64" in made.said()
    assert "credential_helper amazon_ecr" in made.said()
    assert "aHVudGVyMg" not in made.said() + made.result.text


@pytest.mark.parametrize(
    ("tags", "selected"),
    [
        ("['semver: >=1.25.0 <2.0.0']", ["1.25.0", "1.25.3-alpine", "1.26.0-rc1", "2.0.0-rc1", "v1.26.0"]),
        ("['semver: <1.25.0 || !1.25.0 <1.25.3']", ["1.24.0", "1.25.0-rc.1", "1.25.3-alpine", "v1"]),
        ("['regex: v1']", ["v1"]),
        ("['regex: v1|2']", ["1.25.3.2", "2", "v1", "v1.26.0"]),
        ("['keep: v.*']", ["v1", "v1.26.0"]),
        ("['regex: .*', 'keep: latest 1']", ["2"]),
        ("", EVERY),
    ],
)
def test_tags_select_what_they_do_there(imported: Import, tags: str, selected: list[str]) -> None:
    made = imported(
        "tasks: [{name: t, source: {registry: r.example}, target: {registry: s.example}, "
        f"mappings: [{{from: a/b, tags: {tags}}}]}}]"
    )
    assert made.selected("a/b", EVERY) == selected
