"""The folders and files of an instance. Only :meth:`Layout.make_private` creates any."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

#: The checkout that these tools belong to.
CHECKOUT = Path(__file__).resolve().parents[2]


def _running_python() -> Path:
    """The running interpreter, with its symbolic link unresolved: the target is not the one of the venv."""
    return Path(sys.executable)


@dataclass(frozen=True)
class Layout:
    """The folders and files of one instance, all below ``folder``.

    ``checkout`` has the code; ``dags`` and ``plugins`` default to its folders. ``python`` is the interpreter of the
    environment with Airflow.
    """

    folder: Path
    checkout: Path = CHECKOUT
    dags: Path = CHECKOUT / "dags"
    plugins: Path = CHECKOUT / "plugins"
    python: Path = field(default_factory=_running_python)

    @classmethod
    def of_checkout(cls) -> Layout:
        """The instance that ``make up`` starts."""
        return cls(folder=CHECKOUT / ".local")

    @property
    def home(self) -> Path:
        """``AIRFLOW_HOME``."""
        return self.folder / "airflow"

    @property
    def process_logs(self) -> Path:
        return self.folder / "logs"

    @property
    def task_logs(self) -> Path:
        return self.home / "logs"

    @property
    def state(self) -> Path:
        return self.folder / "run"

    @property
    def database(self) -> Path:
        """Airflow's own metadata, SQLite."""
        return self.home / "airflow.db"

    @property
    def migrated(self) -> Path:
        """The file with the version of the Airflow that migrated the database."""
        return self.home / "migrated"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets.json"

    @property
    def passwords(self) -> Path:
        """The file from which SimpleAuthManager reads user names and passwords."""
        return self.home / "passwords.json"

    @property
    def program(self) -> Path:
        """The ``airflow`` command."""
        return self.python.parent / "airflow"

    def make_private(self) -> None:
        """Creates the folders that the instance writes to, and restricts them to their owner."""
        for folder in (self.home, self.process_logs, self.state):
            folder.mkdir(0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def search_path(self) -> str:
        """The ``PYTHONPATH`` with which this checkout's code precedes any installed code."""
        inherited = os.environ.get("PYTHONPATH")
        return os.pathsep.join([str(self.plugins), *([inherited] if inherited else [])])
