"""A URL decides which store stands for it; what cannot be one is refused with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.blobs.object_store import FsspecBlobStore, private_folder
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.stores import open_blob_store


@pytest.mark.parametrize("url", ["file:///var/blobs", "/var/blobs", "file://localhost/var/blobs"])
def test_a_file_url_or_a_path_is_a_local_store(url: str) -> None:
    store = open_blob_store(url)
    assert isinstance(store, LocalBlobStore)
    assert store.root == Path("/var/blobs")


def test_a_file_url_may_hold_escaped_characters() -> None:
    store = open_blob_store("file:///var/my%20blobs")
    assert isinstance(store, LocalBlobStore)
    assert store.root == Path("/var/my blobs")


@pytest.mark.parametrize("url", ["", "blobs", "file:blobs", "file://blobs/here", "./blobs"])
def test_a_place_that_depends_on_where_one_stands_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="absolute"):
        open_blob_store(url)


def test_a_url_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_blob_store("s3://[bucket/blobs")


def test_any_other_url_goes_to_fsspec(tmp_path: Path) -> None:
    assert isinstance(open_blob_store("memory://here", spool_folder=tmp_path), FsspecBlobStore)


def test_a_scheme_that_nobody_knows_is_refused_without_its_secrets(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nonsense://host/here") as caught:
        open_blob_store("nonsense://user:secret@host/here?key=secret", spool_folder=tmp_path)
    assert "secret" not in str(caught.value)


def test_opening_a_local_store_makes_nothing(tmp_path: Path) -> None:
    open_blob_store(f"file://{tmp_path}/blobs")
    assert list(tmp_path.iterdir()) == []


def test_a_local_store_works_without_fsspec() -> None:
    code = (
        "import sys; from registry_sync.hooks.stores import open_blob_store; "
        "open_blob_store('/x'); print('fsspec' in sys.modules)"
    )
    paths = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"


def test_the_private_folder_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = private_folder()
    assert folder == private_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_private_folder_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private_folder().chmod(0o777)
    with pytest.raises(ConfigurationError, match="spool"):
        private_folder()


def test_a_private_folder_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private_folder().rename(tmp_path / "elsewhere")
    (tmp_path / f"registry_sync_spool_{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="spool"):
        private_folder()
