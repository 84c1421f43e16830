"""containerd without a service and without anything of the machine: its own folder and socket, and no containers."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

_START_SECONDS = 30
_CONFIGURATION = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/socket"
"""


class Containerd:
    """``folder`` holds all it knows; ``hosts`` in it is the folder of its ``hosts.toml`` files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = folder / "hosts"

    def __call__(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Runs a command of ``ctr``; the caller looks at the status."""
        return subprocess.run(
            ["ctr", f"--address={self.folder / 'socket'}", *words], check=False, capture_output=True, timeout=120
        )

    def content(self) -> dict[str, bytes]:
        """Everything that it fetched, by digest."""
        digests = self("content", "ls", "--quiet").stdout.decode().split()
        return {digest: self("content", "get", digest).stdout for digest in digests}


@contextmanager
def own_containerd() -> Iterator[Containerd]:
    """One that begins with nothing."""
    made = Containerd(Path(mkdtemp(prefix="cd")))
    made.hosts.mkdir()
    configuration = made.folder / "config.toml"
    configuration.write_text(_CONFIGURATION.format(folder=made.folder))
    log = made.folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            ["containerd", "--config", str(configuration)], stdin=subprocess.DEVNULL, stdout=written, stderr=written
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while made("version").returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(made.folder, ignore_errors=True)
