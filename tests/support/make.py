"""``make`` in a clone of this checkout, as somebody has it who has just fetched the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
#: The environment of the person at the terminal, without what this test run added to it.
_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("AIRFLOW", "MAKE", "MFLAGS", "PYTHONPATH"))
}


class Clone:
    """A copy of the files of this checkout that git knows or would add, in ``folder``.

    Its commands use the environment that runs the tests; with ``venv=None`` they make one of their own.
    """

    def __init__(self, folder: Path, venv: Path | None = Path(sys.prefix)) -> None:
        self.folder = folder
        self._venv = venv
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (CHECKOUT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, folder / name)

    def command(self, *targets: str, **variables: str | int) -> list[str]:
        """The command line of ``make target NAME=value…``."""
        given = {**({"VENV": self._venv} if self._venv else {}), **variables}
        return ["make", *targets, *(f"{name}={value}" for name, value in given.items())]

    def make(self, *targets: str, **variables: str | int) -> subprocess.CompletedProcess[str]:
        """What the command printed and its exit status, whatever it is."""
        return subprocess.run(
            self.command(*targets, **variables),
            cwd=self.folder,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, target: str, **variables: str | int) -> subprocess.Popen[str]:
        """The running command, in a process group of its own as a shell gives it.

        It can be interrupted also where the tests run in the background, which ignores that.
        """
        return subprocess.Popen(
            ["env", "--default-signal=INT", *self.command(target, **variables)],
            cwd=self.folder,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
