"""Small disks of their own, for tests of what happens when they are full or when the power goes.

Only root may mount, as tests do in most containers; :data:`CAN_MOUNT` and :data:`CAN_LOOP` say what works here.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEBIBYTE = 1024 * 1024


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


@contextmanager
def _mounted(folder: Path, *options: str | Path) -> Iterator[Path]:
    folder.mkdir()
    _run("mount", *options, folder)
    try:
        yield folder
    finally:
        _run("umount", "--lazy", folder)


@contextmanager
def memory_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system in memory, mounted at ``folder``, which is made."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs") as mounted:
        yield mounted


@contextmanager
def ext4_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """An ext4 file system in the file ``<folder>.image``, mounted at ``folder``, which is made."""
    image = _image(folder)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-m", "0", image)
    with _mounted(folder, "-o", "loop", image) as mounted:
        yield mounted


@contextmanager
def after_a_loss_of_power(disk: Path) -> Iterator[Path]:
    """What an :func:`ext4_disk` would hold if the power went now; the disk itself continues.

    The image has what the file system has handed to the device so far. What is only in the memory of the system, as
    everything that was not flushed, is not in it.
    """
    folder = disk.with_name(f"{disk.name}-after")
    _run("cp", "--sparse=always", _image(disk), _image(folder))  # most of a disk is empty
    with _mounted(folder, "-o", "loop", _image(folder)) as mounted:
        yield mounted


def _image(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.image")


def _works(loop: bool) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with ext4_disk(Path(folder) / "disk", MEBIBYTE) if loop else memory_disk(Path(folder) / "disk", MEBIBYTE):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


CAN_MOUNT = _works(loop=False)
CAN_LOOP = _works(loop=True)
