"""Other programs that copy all tags of a repository, all platforms, without its referrers.

Each is given twenty requests at once where it can be told. Certificates are those of ``SSL_CERT_FILE``, which all of
them, written in Go, know.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from benchmarks.results import Usage
from benchmarks.syncs.contender import FIRST, PASSES, Contender, Source, empty_folder
from benchmarks.syncs.measured_command import run_measured
from benchmarks.syncs.outcome import check_folders, check_oci_layout
from support.images import RepositoryContent

CONNECTIONS = 20
GO_PROGRAMS = Path(".local/go/bin")


@dataclass
class _Command:
    """A program that writes below ``folder``; ``program`` is its path."""

    program: str
    source: Source
    folder: Path
    name: str = field(init=False, default="")
    passes: ClassVar[tuple[str, ...]] = PASSES

    def empty(self) -> None:
        empty_folder(self.folder)

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _run(self, command: list[str], timeout_seconds: float) -> Usage:
        env = {"HOME": str(self.folder), "DOCKER_CONFIG": str(self.folder / ".docker")}
        if self.source.ca_path is not None:
            env["SSL_CERT_FILE"] = str(self.source.ca_path)
        return run_measured(command, self.folder / "output", timeout_seconds, env)

    @property
    def _layout(self) -> Path:
        return self.folder / "layout"

    def check(self, content: RepositoryContent) -> None:
        check_oci_layout(self._layout, content)


@dataclass
class Skopeo(_Command):
    """``skopeo sync --all`` to a folder for each tag. It refuses folders with content, so that each is a first sync."""

    name: str = field(init=False, default="skopeo")
    passes: ClassVar[tuple[str, ...]] = (FIRST,)

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        verify = f"--src-tls-verify={'false' if self.source.is_plain else 'true'}"
        kinds = ["--src", "docker", "--dest", "dir"]
        command = [self.program, "sync", "--all", *kinds, verify, self.source.name, str(self._layout)]
        return self._run(command, timeout_seconds)

    def check(self, content: RepositoryContent) -> None:
        check_folders(self._layout, content)


@dataclass
class Oras(_Command):
    """``oras backup`` to an OCI image layout."""

    name: str = field(init=False, default="oras")

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        plain = ["--plain-http"] if self.source.is_plain else []
        options = ["--no-tty", "--concurrency", str(CONNECTIONS), "--output", str(self._layout)]
        return self._run([self.program, "backup", *plain, *options, self.source.name], timeout_seconds)


@dataclass
class Crane(_Command):
    """``crane ls`` and ``crane pull`` of all these tags to one OCI image layout."""

    name: str = field(init=False, default="crane")

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        program = shlex.join([self.program, *(["--insecure"] if self.source.is_plain else [])])
        pull = f'exec {program} pull --format=oci --annotate-ref "$@" {shlex.quote(str(self._layout))}'
        # As many arguments at once as Linux takes, so that it is one pull.
        listing = f"{program} ls --full-ref {shlex.quote(self.source.name)}"
        script = f"{listing} >tags && xargs -s 2000000 sh -c {shlex.quote(pull)} pull <tags"
        return self._run(["sh", "-c", f"cd {shlex.quote(str(self.folder))} && {script}"], timeout_seconds)


@dataclass
class Regsync(_Command):
    """``regsync once`` to an OCI image layout."""

    name: str = field(init=False, default="regsync")

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        config = self.folder / "regsync.yml"
        tls = "disabled" if self.source.is_plain else "enabled"
        creds = [{"registry": urlsplit(self.source.url).netloc, "tls": tls, "reqConcurrent": CONNECTIONS}]
        entries = [{"source": self.source.name, "target": f"ocidir://{self._layout}", "type": "repository"}]
        config.write_text(
            json.dumps({"version": 1, "creds": creds, "defaults": {"parallel": CONNECTIONS}, "sync": entries})
        )
        return self._run([self.program, "once", "-c", str(config), "-v", "error"], timeout_seconds)


@dataclass(frozen=True)
class Program:
    """How another program is found: its path, and what to do where it is not installed."""

    name: str
    make: Callable[[str, Source, Path], Contender]
    install: str
    is_built: bool = True

    @property
    def path(self) -> str | None:
        """None where it is not installed."""
        built = GO_PROGRAMS / self.name
        if self.is_built and built.exists():
            return str(built.absolute())
        return shutil.which(self.name)


_BUILT = "make clients builds it, with Go, or: GOBIN=$PWD/.local/go/bin go install"
PROGRAMS = {
    program.name: program
    for program in (
        Program("skopeo", Skopeo, "Debian and Ubuntu: apt-get install skopeo", is_built=False),
        Program("oras", Oras, f"{_BUILT} oras.land/oras/cmd/oras@latest"),
        Program("crane", Crane, f"{_BUILT} github.com/google/go-containerregistry/cmd/crane@latest"),
        Program("regsync", Regsync, f"{_BUILT} github.com/regclient/regclient/cmd/regsync@latest"),
    )
}
