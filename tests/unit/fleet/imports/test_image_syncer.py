"""Files of image-syncer, imported."""

from __future__ import annotations

from .conftest import Import

IMAGES = """\
reg.example.net/team/web: registry.example.cn/mirror/web
reg.example.net/team/web:1.10,2.0: registry.example.cn/mirror/web
reg.example.net/team/db:/^v1\\./: [r.example/m/db, s.example/m/db, s.example/m/copy:latest]
busybox:1.36:
alpine@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: r.example/m/alpine
quay.io/a/b:1.0: r.example/m/b:2.0
quay.io/a/c:b!d: r.example/m/c
quay.io/a/d@sha256:1: r.example/m/d
quay.io/a/e: {x: y}
"""


def test_pairs_become_mirrors_with_what_their_sources_select(imported: Import) -> None:
    made = imported(IMAGES, "image-syncer")
    names = [mirror.repository for mirror in made.fleet.mirrors]
    assert names == ["mirror/web", "m/db", "m/copy", "library/busybox", "m/alpine", "m/b"]
    assert made.options("mirror/web") == {}
    assert made.options("m/db") == made.options("m/copy") == {"regex": [r"v1\..*"]}
    assert made.options("library/busybox") == {"include_tags": ["1.36"]}
    assert made.options("m/alpine") == {"digests": [f"sha256:{'a' * 64}"]}
    for line, text in (
        (3, "the tag (all) becomes latest there"),
        (6, "the tag 1.0 becomes 2.0 there"),
        (7, "'b!d' in 'quay.io/a/c:b!d' is no tag"),
        (8, "is not a sha256 digest"),
        (9, "the target of 'quay.io/a/e' cannot be read"),
    ):
        assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned()), text


def test_the_older_file_has_logins_that_become_connections(imported: Import) -> None:
    made = imported(
        """
        auth:
          quay.io: {username: bot, password: hunter2}
          quay.io/coreos: {username: other, password: hunter2, insecure: true}
          $TARGET: {username: "${USER}", password: hunter2}
        images:
          quay.io/coreos/rbac: registry.example.cn/m/rbac
          quay.io/coreos/rbac:v1.0: registry.example.cn/m/rbac
          docker.io/library/web:1: registry.example.cn/m/web
        """
    )
    rbac, web = made.mirror("m/rbac").remote, made.mirror("m/web").remote
    assert rbac is not None
    assert web is not None
    assert (str(rbac.url), web.source) == ("http://quay.io", "registry-1.docker.io/library/web")
    assert rbac.conn_id == "quay_io"
    assert "the login for quay.io/coreos is of one path" in made.said()
    assert "hunter2" not in made.said() + made.result.text


def test_a_map_of_images_is_recognised(imported: Import) -> None:
    assert [mirror.repository for mirror in imported("quay.io/a/b:1: r.example/m/b").fleet.mirrors] == ["m/b"]
