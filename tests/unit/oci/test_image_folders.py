"""Folders that other tools fill: what they have is found, and a bad one is an error that says where and why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import ConfigurationError, ContentError, NotFound, SizeMismatch
from registry_sync.oci.folder_reader import FolderReader
from registry_sync.oci.image_folders import open_folder
from support.image_layouts import read_index, write_index, write_layout
from support.images import ContentBuilder, RepositoryContent

APP = RepositoryName("app")


def content() -> RepositoryContent:
    build = ContentBuilder(seed=5)
    image = build.image([build.blob(500)])
    build.tag("1.0", image)
    build.tag("index", build.index([image, build.image([build.blob(300)], architecture="arm64")]))
    return build.content()


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", content())


def write_dir(folder: Path, built: RepositoryContent, tag: str) -> Path:
    """One tag as the *dir* transport has it."""
    folder.mkdir(parents=True)
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    part = built.closure([tag])
    for digest, manifest in part.manifests.items():
        is_top = digest == built.tags[tag]
        (folder / ("manifest.json" if is_top else f"{digest.encoded}.manifest.json")).write_bytes(manifest.data)
    for digest, blob in part.blobs.items():
        (folder / digest.encoded).write_bytes(blob.data)
    return folder


def test_a_layout_has_tags_manifests_and_blobs(layout: Path) -> None:
    found, built = open_folder(layout), content()
    assert (list(found.images), found.skipped) == ([""], ())
    reader = FolderReader(found, found.repository(None, "quay.io/any"))
    assert reader.list_tags(APP).tags == ("1.0", "index")
    assert not reader.may_list_digests, "a digest costs no request"
    for tag, digest in built.tags.items():
        head = reader.head_manifest(APP, TagName(tag))
        manifest = built.manifests[digest]
        assert (head.digest, head.media_type, head.size_bytes) == (digest, manifest.media_type, len(manifest.data))
        assert reader.get_manifest(APP, TagName(tag)).data == manifest.data
    for digest, manifest in built.manifests.items():
        assert reader.get_manifest(APP, digest).data == manifest.data
        assert reader.head_manifest(APP, digest).digest == digest
    with pytest.raises(NotFound, match="has no tag gone"):
        reader.head_manifest(APP, TagName("gone"))
    assert (reader.list_referrers_by_api(APP, digest), reader.list_referrers(APP, digest)) == (None, ())
    assert reader.list_tag_digests(APP, set(), most_requests=1) is None
    assert reader.usage.counts().head_count == 0, "no registry was asked"


def test_a_tree_has_the_tags_of_its_folders_names(tmp_path: Path) -> None:
    built = content()
    for name in ("team/app:1.0", "team/app:index", "other:1.0"):
        write_dir(tmp_path / "tree" / name, built, name.rpartition(":")[2])
    found = open_folder(tmp_path / "tree")
    assert sorted(found.images) == ["other", "team/app"]
    assert found.repository(None, "quay.io/team/app") == "team/app"
    assert found.repository("app", "quay.io/else/where") == "team/app"
    reader = FolderReader(found, "team/app")
    assert reader.list_tags(APP).tags == ("1.0", "index")
    for digest in built.below(built.tags.values()):
        assert reader.get_manifest(APP, digest).data == built.manifests[digest].data
    with pytest.raises(ConfigurationError, match=r"say which repository of .*; it has other, team/app"):
        found.repository(None, "quay.io/else/where")


def test_one_image_alone_needs_a_tag(tmp_path: Path) -> None:
    built = content()
    folder = write_dir(tmp_path / "one", built, "1.0")
    with pytest.raises(ConfigurationError, match="is one image without a tag: give it one by --tag"):
        open_folder(folder)
    found = open_folder(folder, TagName("3.2"))
    assert FolderReader(found, "").head_manifest(APP, TagName("3.2")).digest == built.tags["1.0"]


@pytest.mark.parametrize(
    ("annotations", "repository", "tag"),
    [
        ({"org.opencontainers.image.ref.name": "3.20"}, "", "3.20"),
        ({"org.opencontainers.image.ref.name": "registry.example:5000/a/b:3.20"}, "registry.example:5000/a/b", "3.20"),
        (
            {"io.containerd.image.name": "docker.io/library/x:1", "org.opencontainers.image.ref.name": "1"},
            "docker.io/library/x",
            "1",
        ),
        ({"org.opencontainers.image.ref.name": "a/b"}, "a/b", "latest"),
    ],
)
def test_names_of_several_tools_are_read(layout: Path, annotations: dict[str, str], repository: str, tag: str) -> None:
    first = {**read_index(layout)[0], "annotations": annotations}
    write_index(layout, [first])
    assert {name: list(found) for name, found in open_folder(layout).images.items()} == {repository: [tag]}


def test_what_has_no_name_is_left_out_and_a_single_one_may_be_given_a_tag(layout: Path) -> None:
    named, unnamed = read_index(layout)
    del unnamed["annotations"]
    write_index(layout, [named, unnamed])
    assert open_folder(layout).skipped == (f"{unnamed['digest']} has no tag",)
    given = open_folder(layout, TagName("new"))
    assert (given.skipped, sorted(given.images[""])) == ((), ["1.0", "new"])
    named["annotations"] = {"org.opencontainers.image.ref.name": "a/b:-bad"}
    write_index(layout, [named])
    assert open_folder(layout).skipped == ("'a/b:-bad' names no tag",)
    with pytest.raises(ConfigurationError, match="has no image that could be imported: 'a/b:-bad' names no tag"):
        open_folder(layout).repository(None, "x/y")


def _no_json(folder: Path) -> None:
    (folder / "index.json").write_text("[" * 100_000)


def _no_list(folder: Path) -> None:
    (folder / "index.json").write_text("{}")


def _no_object(folder: Path) -> None:
    (folder / "index.json").write_text("[]")


def _no_descriptor(folder: Path) -> None:
    write_index(folder, [{"digest": "sha256:../../etc/passwd", "size": 1}])


def _no_size(folder: Path) -> None:
    write_index(folder, [{**read_index(folder)[0], "size": -1}])


def _twice(folder: Path) -> None:
    first, second = read_index(folder)
    write_index(folder, [first, {**second, "annotations": first["annotations"]}])


def _no_manifest(folder: Path) -> None:
    write_index(folder, [{**read_index(folder)[0], "mediaType": "text/plain"}])


def _linked_index(folder: Path) -> None:
    (folder / "index.json").rename(folder / "real.json")
    (folder / "index.json").symlink_to("real.json")


def _linked_blobs(folder: Path) -> None:
    (folder / "blobs").rename(folder / "elsewhere")
    (folder / "blobs").symlink_to(folder / "elsewhere")


def _no_index(folder: Path) -> None:
    (folder / "index.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_json, "index.json' is not JSON"),
        (_no_list, "has no list of manifests"),
        (_no_object, "is no JSON object"),
        (_no_descriptor, "entry 1 of .* is no descriptor with mediaType, digest and size"),
        (_no_size, "entry 1 of .* is no descriptor"),
        (_twice, "has the tag 1.0 twice: as sha256:.* and as sha256:"),
        (_no_manifest, "the tag 1.0 is 'text/plain', which is no manifest"),
        (_linked_index, "index.json' cannot be read: is a link, and links in folders are not followed"),
        (_linked_blobs, "blobs' is a link; links in folders are not followed: copy the folder"),
        (_no_index, "index.json' is missing"),
    ],
)
def test_a_bad_layout_is_an_error_that_says_where_and_why(
    layout: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(layout)
    with pytest.raises(ConfigurationError, match=said):
        open_folder(layout)


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither an OCI image layout nor what skopeo sync"):
        open_folder(tmp_path)
    with pytest.raises(ConfigurationError, match="is no folder"):
        open_folder(tmp_path / "missing")
    (tmp_path / "docker-save:1").mkdir()
    (tmp_path / "docker-save:1" / "manifest.json").write_text(json.dumps([{"Config": "a.json"}]))
    with pytest.raises(ConfigurationError, match="neither an OCI image layout"):
        open_folder(tmp_path)


def place(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded


def test_files_are_plain_and_below_the_folder(layout: Path, tmp_path: Path) -> None:
    digest = content().tags["1.0"]
    found, file = open_folder(layout), place(layout, digest)
    secret = tmp_path / "secret"
    secret.write_bytes(file.read_bytes())
    for make in (lambda: file.symlink_to(secret), lambda: os.mkfifo(file), file.mkdir):
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()
        make()
        with pytest.raises(ContentError, match=r"links in folders are not followed|is no plain file"):
            found.open("", digest)
    file.rmdir()
    with pytest.raises(ContentError, match=f"lacks {digest}"):
        found.open("", digest)


def test_a_manifest_of_another_size_is_not_read(layout: Path) -> None:
    built = content()
    file = place(layout, built.tags["1.0"])
    file.write_bytes(file.read_bytes() + b" ")
    reader = FolderReader(open_folder(layout), "")
    with pytest.raises(SizeMismatch, match="and its descriptor says"):
        reader.get_manifest(APP, TagName("1.0"))
    file.write_bytes(b"x" * len(built.manifests[built.tags["1.0"]].data))
    with pytest.raises(ContentError, match=r"is not|hash"):
        reader.get_manifest(APP, TagName("1.0"))
