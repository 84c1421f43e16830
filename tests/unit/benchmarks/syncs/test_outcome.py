"""A copy that lacks something, or has other bytes, is no copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.syncs.outcome import check_blobs, check_folders, check_oci_layout

from support.images import RepositoryContent
from support.shapes import nested


@pytest.fixture
def content() -> RepositoryContent:
    return nested()


def layout(folder: Path, content: RepositoryContent, name: str = "latest") -> Path:
    """An OCI image layout of it, as a program writes one."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for data in [*(m.data for m in content.manifests.values()), *(b.data for b in content.blobs.values())]:
        (blobs / _encoded(content, data)).write_bytes(data)
    entry = {"digest": content.tags["latest"], "annotations": {"org.opencontainers.image.ref.name": name}}
    (folder / "index.json").write_text(json.dumps({"manifests": [entry]}))
    return folder


def _encoded(content: RepositoryContent, data: bytes) -> str:
    held = {m.data: d for d, m in content.manifests.items()} | {b.data: d for d, b in content.blobs.items()}
    return held[data].encoded


def folders(folder: Path, content: RepositoryContent) -> Path:
    """A folder for its tag, as ``skopeo sync`` writes one."""
    (here := folder / "nested:latest").mkdir(parents=True)
    for digest, manifest in content.manifests.items():
        (here / f"{digest.encoded}.manifest.json").write_bytes(manifest.data)
    for digest, blob in content.blobs.items():
        (here / digest.encoded).write_bytes(blob.data)
    (here / "manifest.json").write_bytes(content.manifests[content.tags["latest"]].data)
    return folder


def blobs(folder: Path, content: RepositoryContent) -> Path:
    folder.mkdir(exist_ok=True)
    for digest, blob in content.blobs.items():
        (folder / digest.encoded).write_bytes(blob.data)
    return folder


WRITERS = [
    (layout, check_oci_layout),
    (folders, check_folders),
    (blobs, lambda folder, content: check_blobs(folder, content.blobs)),
]


@pytest.mark.parametrize(("write", "check"), WRITERS, ids=["layout", "folders", "blobs"])
def test_a_copy_is_whole_until_a_byte_or_a_file_is_lost(
    content: RepositoryContent,
    tmp_path: Path,
    write: Callable[[Path, RepositoryContent], Path],
    check: Callable[[Path, RepositoryContent], None],
) -> None:
    copy = write(tmp_path / "copy", content)
    check(copy, content)
    one = next(iter(content.blobs))
    (file,) = copy.rglob(one.encoded)
    file.write_bytes(b"other")
    with pytest.raises(RuntimeError, match=f"{one} has arrived with other bytes"):
        check(copy, content)
    file.unlink()
    with pytest.raises(RuntimeError, match=f"{one} has not arrived"):
        check(copy, content)


@pytest.mark.parametrize("name", ["latest", "127.0.0.1:5000/team/nested:latest"])
def test_a_layout_names_its_tags_alone_or_as_whole_references(
    content: RepositoryContent, tmp_path: Path, name: str
) -> None:
    check_oci_layout(layout(tmp_path, content, name), content)


def test_a_tag_that_is_another_manifest_is_found(content: RepositoryContent, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="has latest not as"):
        check_oci_layout(layout(tmp_path / "layout", content, "newest"), content)
    copy = folders(tmp_path / "folders", content)
    (copy / "nested:latest/manifest.json").write_bytes(b"{}")
    with pytest.raises(RuntimeError, match="other bytes"):
        check_folders(copy, content)
    (copy / "nested:latest").rename(copy / "nested:newest")
    with pytest.raises(RuntimeError, match="no folder of latest"):
        check_folders(copy, content)
