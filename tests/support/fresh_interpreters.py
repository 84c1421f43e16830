"""Programs in an interpreter of their own, which has loaded nothing yet: what they load and compile can be counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PATIENCE_SECONDS = 300


def run_program(code: str, *arguments: str, home: Path, settings: dict[str, str], **env: str) -> tuple[str, str]:
    """What a program in Python has printed, and its errors.

    ``home`` is its ``AIRFLOW_HOME``, ``settings`` those of the section ``registry_sync``; of this process's environment
    no setting of Airflow reaches it, but whence it imports. A program that fails, fails the test.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        **{f"AIRFLOW__REGISTRY_SYNC__{name.upper()}": value for name, value in settings.items()},
        "PYTHONPATH": os.pathsep.join(sys.path),
        **env,
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout, done.stderr
