"""Files of oc-mirror, imported."""

from __future__ import annotations

import pytest

from .conftest import Import

DIGEST = "sha256:" + "5d" * 32
FILE = f"""\
kind: ImageSetConfiguration
apiVersion: mirror.openshift.io/v2alpha1
archiveSize: 4
mirror:
  platform: {{channels: [{{name: stable}}]}}
  operators:
    - catalog: registry.example.net/index:v4
  additionalImages:
    - name: reg.example.net/u/b:1.10
    - {{name: "reg.example.net/u/b@{DIGEST}", targetTag: pinned}}
    - name: reg.example.net/u/c:9
      targetTag: "9.0"
      targetRepo: own/c
      platforms: [{{os: linux, architecture: amd64}}, {{os: linux, architecture: arm64, variant: v8}}]
    - name: busybox:1.36
    - name: reg.example.net/old/app:1
    - name: reg.example.net/other/exact:2
    - name: reg.example.net/u/untagged
    - name: oci:///tmp/layout
    - {{nam: x}}
  blockedImages:
    - name: /old/
    - name: reg.example.net/other/exact:2
    - name: "(?=x)"
  helm:
    local: [{{name: l, path: /charts}}]
    repositories:
      - {{name: o, url: "oci://charts.example.net/team", charts: [{{name: web, version: 1.2.0+b1}}, {{name: half}}]}}
      - {{name: p, url: "https://charts.example.net", charts: [{{name: web, version: "1"}}]}}
"""


def test_named_images_become_mirrors(imported: Import) -> None:
    made = imported(FILE)
    assert [mirror.repository for mirror in made.fleet.mirrors] == ["u/b", "own/c", "library/busybox", "team/web"]
    assert made.options("u/b") == {"include_tags": ["1.10"], "digests": [f"pinned@{DIGEST}"]}
    assert made.options("own/c") == {"include_tags": ["9"]}
    assert made.options("team/web") == {"include_tags": ["1.2.0_b1"]}
    remote = made.mirror("own/c").remote
    assert remote is not None
    assert remote.source == "reg.example.net/u/c"
    assert list(map(str, remote.platforms or ())) == ["linux/amd64", "linux/arm64/v8"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (3, "archiveSize has no counterpart"),
        (5, "releases of a platform are left out"),
        (6, "operators of a catalog are left out"),
        (12, "targetTag: 9 becomes 9.0 there; here tags keep their names"),
        (16, "reg.example.net/old/app:1 is left out, because blockedImages has '/old/'"),
        (17, "reg.example.net/other/exact:2 is left out"),
        (18, "has neither a tag nor a digest"),
        (19, "is a folder and no registry"),
        (20, "has no key 'nam'"),
        (24, "it blocks that text alone"),
        (26, "local charts are left out"),
        (28, "of a chart the chart alone is mirrored"),
        (28, "the chart has no name or no version"),
        (29, "charts of https://charts.example.net are left out"),
    ],
)
def test_what_cannot_be_carried_over_is_said_with_its_line(imported: Import, line: int, text: str) -> None:
    made = imported(FILE)
    assert any(said.startswith(f"theirs.yaml:{line}: warning: ") and text in said for said in made.warned())


def test_the_older_version_is_read_as_well(imported: Import) -> None:
    made = imported(
        """
        kind: ImageSetConfiguration
        apiVersion: mirror.openshift.io/v1alpha2
        storageConfig: {local: {path: /data}}
        mirror: {additionalImages: [{name: "quay.io/a/b:latest"}], helm: {}}
        """
    )
    assert made.options("a/b") == {"include_tags": ["latest"]}
    assert made.warned() == []


def test_keys_are_read_in_any_case_as_go_reads_them(imported: Import) -> None:
    done = imported("""\
        kind: ImageSetConfiguration
        apiVersion: mirror.openshift.io/v2alpha1
        mirror:
          additionalimages:
            - {Name: "quay.io/a/b:1", targetrepo: own/b}
            - {name: "quay.io/a/c:1"}
          blockedimages: [{NAME: "quay.io/a/c:1"}]
          Helm: {Local: [{name: l, path: /charts}]}
          other: x
        """)
    assert done.options("own/b") == {"include_tags": ["1"]}
    assert done.result.mirror_count == 1
    assert "has no key 'other'" in done.said()
    assert [line for line in done.warned() if "no key" in line and "other" not in line] == []
    assert "local charts are left out" in done.said()


def test_what_blocks_none_of_the_named_images_is_said(imported: Import) -> None:
    done = imported("""\
        kind: ImageSetConfiguration
        apiVersion: mirror.openshift.io/v2alpha1
        mirror:
          additionalImages: [{name: "quay.io/a/b:1"}, {name: "quay.io/a/c:1"}]
          blockedImages: [{name: "quay.io/a/c:1"}, {name: of-an-operator}]
        """)
    assert done.result.mirror_count == 1
    assert "'of-an-operator' blocks none of the images" in done.said()
    assert "'quay.io/a/c:1' blocks none" not in done.said()


@pytest.mark.parametrize(("version", "count"), [("v1alpha2", 1), ("v2alpha1", 0)])
def test_an_image_without_a_tag_is_the_latest_in_files_of_the_first_version(
    imported: Import, version: str, count: int
) -> None:
    done = imported(f"""\
        kind: ImageSetConfiguration
        apiVersion: mirror.openshift.io/{version}
        mirror: {{additionalImages: [{{name: quay.io/a/b}}]}}
        """)
    assert done.result.mirror_count == count
    assert ("has neither a tag nor a digest" in done.said()) is (not count)
    if count:
        assert done.options("a/b") == {"include_tags": ["latest"]}
