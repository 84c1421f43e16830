"""Who may use the files that are stored here: their owner alone, or its group as well. The umask never says more."""

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
        """Gives an open file that was made these permissions where the umask took some; another user's is left."""
        if self.file & ~os.fstat(descriptor).st_mode & 0o777:
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, self.file)

    def tighten(self, path: str | os.PathLike[str]) -> None:
        """Takes from a file or folder of an earlier release what these do not allow; another user's is left."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            mode = os.stat(path).st_mode & 0o7777  # noqa: PTH116  asked for at each start
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


def flush_folder(folder: Path) -> None:
    """Flushes the names in ``folder``, so that they survive a loss of power. Raises :class:`OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


OWNER_ONLY = FileModes(0o600, 0o700)
#: What is new in such a folder has the folder's group, whichever the user's own is.
GROUP_TOO = FileModes(0o660, 0o2770)
