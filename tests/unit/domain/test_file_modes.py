"""Files and folders that are made are their owner's alone, or their group's as well, whatever the umask."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import registry_sync
from registry_sync.db.database import Database
from registry_sync.domain.file_modes import GROUP_TOO, OWNER_ONLY, FileModes
from registry_sync.hooks.settings import Settings
from registry_sync.hooks.stores import open_blob_store, open_blobs, open_database
from support.blob_stores import LARGE, SMALL, put
from support.images import Blob


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes_below(folder: Path) -> tuple[set[int], set[int]]:
    """Permissions of the files and of the folders, ``folder`` among them."""
    every = [folder, *folder.rglob("*")]
    return tuple(  # type: ignore[return-value]
        {path.stat().st_mode & 0o7777 for path in every if path.is_dir() is is_folder} for is_folder in (False, True)
    )


def fill(settings: Settings) -> None:
    """Everything that is ever made in the embedded stores."""
    with open_database(settings) as database:
        database.repositories.ensure("app")
        with database.lock("remote 1"):
            pass
        store = open_blobs(settings)
        for number, size in enumerate((SMALL, LARGE)):
            put(store, Blob.random(number, size))
        with store.writer(Blob.random(7, LARGE).digest, LARGE) as writer:
            writer.write(b"half")
        store.quarantine(Blob.random(0, SMALL).digest)
        settings_home = settings.home
        assert settings_home is not None
        expected = (settings.file_modes.file, settings.file_modes.folder)
        assert modes_below(settings_home) == ({expected[0]}, {expected[1]})
        assert len(list(settings_home.iterdir())) == 6, "with the files that SQLite has beside its own"


def settings_at(folder: Path, *, share_with_group: bool = False) -> Settings:
    home = folder / "registry_sync"
    database, blobs = f"sqlite:///{home}/registry_sync.db", (home / "blobs").as_uri()
    return Settings(database, blobs, 4, 1, share_with_group=share_with_group, home=home)


@pytest.mark.slow
@pytest.mark.parametrize("share_with_group", [False, True])
def test_what_is_stored_is_its_owners_or_its_groups(tmp_path: Path, umask: int, share_with_group: bool) -> None:
    fill(settings_at(tmp_path, share_with_group=share_with_group))


def test_the_folders_above_a_database_are_its_owners_too(tmp_path: Path, umask: int) -> None:
    with Database.connect(f"sqlite:///{tmp_path}/a/b/c/registry_sync.db") as database:
        database.ready()
    assert modes_below(tmp_path / "a") == ({0o600}, {0o700})


def test_what_an_earlier_release_stored_is_taken_from_others(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    fill(settings)
    home = settings.home
    assert home is not None
    home.chmod(0o755)
    for path in home.glob("registry_sync.db*"):
        path.chmod(0o644)
    with open_database(settings):
        assert modes_below(home)[0] == {0o600}
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_made_keeps_its_permissions(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    root.mkdir(0o755)
    root.chmod(0o755)
    put(open_blob_store(str(root)), Blob.random(1, LARGE))
    assert root.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in root.iterdir()} == {0o700}


@pytest.mark.parametrize(
    ("modes", "before", "after"),
    [(OWNER_ONLY, 0o644, 0o600), (OWNER_ONLY, 0o600, 0o600), (GROUP_TOO, 0o664, 0o660), (GROUP_TOO, 0o600, 0o600)],
)
def test_permissions_are_only_taken(tmp_path: Path, modes: FileModes, before: int, after: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(before)
    modes.tighten(path)
    assert path.stat().st_mode & 0o777 == after
    modes.tighten(tmp_path / "missing")


@pytest.mark.parametrize("modes", [OWNER_ONLY, GROUP_TOO], ids=["owner", "group"])
def test_folders_are_made_by_one_function_from_the_top_down_and_those_that_exist_stay(
    tmp_path: Path, umask: int, modes: FileModes
) -> None:
    top = tmp_path / "top"
    top.mkdir(0o755)
    top.chmod(0o755)
    for _ in range(2):
        modes.make_folder(top / "a" / "b")
    assert top.stat().st_mode & 0o7777 == 0o755
    assert modes_below(top / "a")[1] == {modes.folder}
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        modes.make_folder(tmp_path / "file" / "a")


def test_nothing_else_makes_folders_where_content_is_stored() -> None:
    """But below the system's folder for temporary files, where both are this user's alone: a spool and a rehearsal."""
    package = Path(registry_sync.__file__).parent
    makers = {path.name for path in package.rglob("*.py") if re.search(r"\.mkdir\(|os\.makedirs\(", path.read_text())}
    assert makers == {"file_modes.py", "object_store.py", "preloading.py"}
