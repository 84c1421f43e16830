"""Completion of ``airflow registry-sync`` by the tab key, in shells as people start them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry_sync.cli import arguments
from registry_sync.db.database import Database
from registry_sync.domain.remote import RemoteSpec
from support.commands import completed

PROGRAMS = Path(sys.executable).parent
#: What the documentation says to put into the file that each shell reads first.
SET_UP = {
    "bash": 'eval "$(register-python-argcomplete airflow)"',
    "zsh": 'autoload -U compinit && compinit -u\neval "$(register-python-argcomplete airflow)"',
}
_TIMEOUT_SECONDS = 120


class _Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = ""

    def type(self, text: str, *, until: str) -> None:
        """Types ``text``, and waits until the terminal shows something like ``until``, which may have been typed."""
        os.write(self._descriptor, text.encode())
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while re.search(until, self._shown) is None:
            readable, _, _ = select.select([self._descriptor], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"not shown: {until}, but {self._shown!r}"
            self._shown += os.read(self._descriptor, 65536).decode(errors="replace")
        self._shown = ""


@contextmanager
def _shell(name: str, home: Path, environment: dict[str, str]) -> Iterator[_Terminal]:
    (home / ".bashrc").write_text(f"PS1='ready> '\nbind 'set enable-bracketed-paste off'\n{SET_UP['bash']}\n")
    (home / ".zshrc").write_text(f"PS1='ready> '\nunset zle_bracketed_paste\nunsetopt zle_prompt_sp\n{SET_UP['zsh']}\n")
    program = shutil.which(name) or pytest.skip(f"{name} is not installed")
    child, descriptor = pty.fork()
    if not child:  # pragma: no cover  # another process
        os.chdir(home)
        os.execve(program, [program, "-i"], {**environment, "HOME": str(home), "ZDOTDIR": str(home), "TERM": "dumb"})
    try:
        terminal = _Terminal(descriptor)
        terminal.type("", until="ready> ")
        yield terminal
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(descriptor)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    address = f"sqlite:///{tmp_path / 'registry_sync.db'}"
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", address)
    with Database.connect(address) as made:
        made.ready()
        for name in ("hello-moon", "hello-world", "other"):
            made.repositories.ensure(name)
        made.remotes.create(RemoteSpec.parse("upstream", "https://quay.io", "libpod/alpine"))
        yield made


@pytest.mark.parametrize("shell", sorted(SET_UP))
def test_the_tab_key_completes_commands_and_names(shell: str, database: Database, tmp_path: Path) -> None:
    """A second and a half of the processor each; what else is completed is asked of the program alone, below."""
    environment = {
        "PATH": f"{PROGRAMS}:/usr/bin:/bin",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'registry_sync.db'}",
    }
    with _shell(shell, tmp_path, environment) as terminal:
        if shell == "bash":
            terminal.type("airflow registry-sync rep\t", until=r"rep.*ository ")
            terminal.type("show hello-w\t", until=r"hello-w.*orld ")
        else:
            terminal.type("airflow registry-sync repository show hello-w\t", until=r"hello-w.*orld ")


def test_each_kind_of_word_is_completed(database: Database) -> None:
    assert completed("registry-sync re") == ["reclaim", "remote", "repository"]
    assert completed("registry-sync version list hello-") == ["hello-moon", "hello-world"]
    assert completed("registry-sync inspect o") == ["other"]
    assert completed("registry-sync remote show ") == ["upstream"]
    assert completed("registry-sync sync other --remote u") == ["upstream"]
    assert completed("registry-sync sync other --mode ") == ["additive", "mirror"]
    assert completed("registry-sync run approve --da") == ["--dag-id"]
    assert completed("registry-sync repository show hello-world --output ya") == ["yaml"]


def test_without_a_database_no_name_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path / 'registry_sync.db'}")
    assert arguments.stored_names("repositories", "") == []
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", "nonsense")
    assert arguments.stored_names("repositories", "") == []
