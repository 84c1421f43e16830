"""Folders that survive a loss of power: each is known to the one above it for good before it is used."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from registry_sync.domain.file_modes import OWNER_ONLY, FileModes


def make_folder(folder: Path, modes: FileModes = OWNER_ONLY) -> None:
    """Makes ``folder`` and those above it; one that exists is left as it is. Raises :class:`OSError`."""
    if not folder.is_dir():
        make_folder(folder.parent, modes)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(OWNER_ONLY.folder)
            if modes != OWNER_ONLY:
                folder.chmod(modes.folder)
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Makes the names in ``folder`` survive. Raises :class:`OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
