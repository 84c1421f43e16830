"""Files of ``skopeo sync``, imported."""

from __future__ import annotations

import pytest

from registry_sync.domain.records import SyncMode
from registry_sync.fleet.imports.formats import ImportOptions
from registry_sync.fleet.imports.skopeo import RepositoryNames

from .conftest import Import

DIGEST = "sha256:" + "5d" * 32
FILE = f"""\
docker.io:
  images:
    nginx: []
    grafana/grafana: [1.10, 2.0, "{DIGEST}", "not a tag"]
  images-by-tag-regex:
    redis: '^7\\.\\d+$'
reg.example.net/team:
  images: {{web: , cli: [012, on]}}
  images-by-semver:
    db: ["v15.2 - v16", ">= v17.1-0"]
    broken: next
  images-by-tag-regex: {{bad: '(?=x)'}}
  credentials: {{username: bot, password: hunter2}}
  tls-verify: false
  cert-dir: /etc/certs
  password-file: /run/secret
"""


def test_images_expressions_and_ranges_become_rules(imported: Import) -> None:
    made = imported(FILE)
    assert made.options("library/nginx") == {}
    assert made.options("grafana/grafana") == {"include_tags": ["1.10", "2.0"], "digests": [DIGEST]}
    assert made.options("library/redis") == {"regex": [r"7\.\d+"]}
    assert made.options("team/web") == {}
    assert made.options("team/cli") == {"include_tags": ["012", "on"]}
    tags = ["v15.1", "15.3", "16.4-alpine", "v17.1-rc1", "17.2-alpine", "18"]
    assert made.selected("team/db", tags) == ["15.3", "17.2-alpine", "18", "v17.1-rc1"]
    assert {mirror.mode for mirror in made.fleet.mirrors} == {SyncMode.ADDITIVE}


def test_what_cannot_be_carried_over_is_said_with_its_line(imported: Import) -> None:
    made = imported(FILE)
    for line, text in (
        (4, "'not a tag' is no tag; skopeo skips it"),
        (11, "cannot be read at 'next'"),
        (12, "reg.example.net/team/bad is left out"),
        (14, "ssl_validation is false"),
        (15, "name the certificates of /etc/certs in a connection"),
        (16, "skopeo's file has no key 'password-file'"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text
    assert "theirs.yaml: warning: all platforms are kept" in made.said()
    assert "mode is additive" in made.said()
    assert "write mode: mirror" in made.said()


def test_credentials_are_named_and_never_repeated(imported: Import) -> None:
    made = imported(FILE)
    assert "hunter2" not in made.said() + made.result.text
    assert "theirs.yaml:13: note: reg.example.net needs a connection 'reg_example_net'" in made.said()
    remote = made.mirror("team/web").remote
    assert remote is not None
    assert (remote.conn_id, remote.ssl_validation) == ("reg_example_net", False)
    other = made.mirror("library/nginx").remote
    assert other is not None
    assert (other.conn_id, other.ssl_validation) == (None, True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (RepositoryNames.PATH, "team/web"),
        (RepositoryNames.SCOPED, "reg.example.net/team/web"),
        (RepositoryNames.LAST, "web"),
    ],
)
def test_repositories_are_named_as_wished(imported: Import, names: RepositoryNames, expected: str) -> None:
    made = imported("reg.example.net/team: {images: {web: [a]}}", options=ImportOptions(names))
    assert [mirror.repository for mirror in made.fleet.mirrors] == [expected]


def test_a_repository_of_several_sections_is_one_mirror(imported: Import) -> None:
    made = imported(
        """
        quay.io: {images: {a/b: [x, 1]}, images-by-tag-regex: {a/b: 'v\\d'}}
        quay.io/a: {images: {b: [x, 2]}, images-by-semver: {b: ~1.2}}
        """
    )
    (mirror,) = made.fleet.mirrors
    assert made.selected("a/b", ["x", "1", "2", "3", "xv1x", "1.2.9", "1.3"]) == ["1", "1.2.9", "2", "x", "xv1x"]
    assert mirror.place == "mirrors.yaml:5"
    assert "3 entries were folded" in made.said()


def test_two_sources_of_one_name_are_a_warning_that_names_both(imported: Import) -> None:
    made = imported(
        "{quay.io: {images: {a/b: [x]}}, ghcr.io: {images: {c/b: [y]}}}", options=ImportOptions(RepositoryNames.LAST)
    )
    assert made.options("b") == {"include_tags": ["x"]}
    assert any("b is filled from quay.io/a/b (line 1) and from ghcr.io/c/b" in said for said in made.warned())


def test_a_second_login_at_one_host_is_a_connection_of_its_mirrors(imported: Import) -> None:
    made = imported(
        """
        r.example.net/a: {images: {x: }, credentials: {username: one, password: p}}
        r.example.net/b: {images: {x: }, credentials: {username: two, password: p}}
        """
    )
    found = [mirror.remote.conn_id for mirror in made.fleet.mirrors if mirror.remote]
    assert found == ["r_example_net", "r_example_net_2"]
