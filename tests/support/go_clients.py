"""crane, oras and regctl, as ``make clients`` builds them, with a home of their own."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = Path(__file__).parents[2] / ".local/go/bin"


@dataclass
class GoClients:
    """Runs the programs on the registry at ``netloc``; a command that fails fails the test, unless it ``may_fail``."""

    home: Path
    netloc: str

    @classmethod
    def at(cls, home: Path, netloc: str) -> GoClients:
        """Makes ``home``; regctl is told that the registry has no TLS."""
        home.mkdir()
        made = cls(home, netloc)
        made("regctl", "registry", "set", "--tls", "disabled", "--skip-check", netloc)
        return made

    def __call__(self, *words: str, may_fail: bool = False, stdin: str = "") -> str:
        """What a command prints, its errors too when it may fail."""
        environment = {**os.environ, "HOME": str(self.home), "DOCKER_CONFIG": str(self.home / ".docker")}
        program = [str(_PROGRAMS / words[0]), *words[1:]]
        done = subprocess.run(
            program, check=False, env=environment, capture_output=True, text=True, timeout=120, input=stdin
        )
        assert (done.returncode != 0) == may_fail, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr if may_fail else done.stdout

    def named(self, name: str) -> str:
        """A base path as clients name it."""
        return f"{self.netloc}/{name}"
