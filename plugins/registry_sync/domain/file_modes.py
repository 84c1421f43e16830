"""Permissions of stored files: for their owner alone, or for their group as well, independent of the umask."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileModes:
    """Permissions of files and folders, as of :func:`os.chmod`."""

    file: int
    folder: int

    def apply(self, descriptor: int) -> None:
        """Sets these permissions on a created file where the umask removed some; skips files of other users."""
        if self.file & ~os.fstat(descriptor).st_mode & 0o777:
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, self.file)

    def tighten(self, path: str | os.PathLike[str]) -> None:
        """Removes permissions of an existing file or folder that these do not allow; skips other users' files."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            mode = os.stat(path).st_mode & 0o7777  # noqa: PTH116 called at each start
            if mode & 0o077 & ~self.folder:
                os.chmod(path, mode & (self.folder | 0o700))  # noqa: PTH101  as above

    def make_folder(self, folder: Path) -> None:
        """Creates ``folder`` and its parents, none of them open to others whatever the umask.

        An existing folder is not changed. A new one survives a loss of power. Raises :class:`OSError`.
        """
        if not folder.is_dir():
            self.make_folder(folder.parent)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(0o700)
                if self.folder != 0o700:
                    folder.chmod(self.folder)
            flush_folder(folder.parent)


def flush_folder(folder: str | Path) -> None:
    """Flushes the names in ``folder``, so that they survive a loss of power. Raises :class:`OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


OWNER_ONLY = FileModes(0o600, 0o700)
#: New files in such a folder get the folder's group, whatever the user's own group is.
GROUP_TOO = FileModes(0o660, 0o2770)
