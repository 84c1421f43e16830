"""skopeo copying the same repository to a folder, all platforms."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class Skopeo:
    """``skopeo sync --all`` of one repository into ``folder``."""

    name = "skopeo"

    def __init__(self, netloc: str, repository: str, folder: Path) -> None:
        self._source = f"{netloc}/{repository}"
        self._folder = folder
        self._copy_count = 0

    def empty(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def first(self) -> None:
        """Copies. Raises :class:`RuntimeError` with what skopeo said when it cannot."""
        self._copy_count += 1
        target = self._folder / str(self._copy_count)
        command = ["skopeo", "sync", "--all", "--src", "docker", "--dest", "dir", "--src-tls-verify=false"]
        run = subprocess.run(
            [*command, self._source, str(target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if run.returncode:
            raise RuntimeError(run.stderr.strip().splitlines()[-1][:300])

    def again(self) -> None:
        """Copies once more, into another folder: it refuses one with content, and knows no unchanged copy."""
        self.first()
