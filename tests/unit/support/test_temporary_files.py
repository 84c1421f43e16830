"""Tests write to memory only where there is plenty of it, and where programs in it run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.small_disks import CAN_MOUNT, MEBIBYTE, memory_disk
from support.temporary_files import GIBIBYTE, choose

pytestmark = pytest.mark.skipif(not CAN_MOUNT, reason="only root mounts disks")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with memory_disk(tmp_path / "disk", 16 * MEBIBYTE) as mounted:
        yield mounted


def chosen(disk: Path, written_bytes: int = MEBIBYTE, memory_bytes: int = 0, **environment: str) -> str | None:
    choose(environment, folder=disk, written_bytes=written_bytes, memory_bytes=memory_bytes)
    return environment.get("TMPDIR")


def test_a_folder_in_memory_with_room_is_used(disk: Path) -> None:
    assert chosen(disk) == str(disk)


def test_what_the_user_has_set_stays(disk: Path) -> None:
    assert chosen(disk, TMPDIR="/elsewhere") == "/elsewhere"


def test_a_small_folder_is_not_used_nor_one_that_leaves_too_little_memory(disk: Path) -> None:
    assert chosen(disk, written_bytes=17 * MEBIBYTE) is None
    assert chosen(disk, memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + GIBIBYTE) is None


def test_a_folder_whose_programs_do_not_run_is_not_used_nor_one_that_is_missing(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,noexec", str(disk)], check=True)
    assert chosen(disk) is None
    assert chosen(disk / "missing") is None
