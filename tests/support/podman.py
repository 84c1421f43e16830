"""Podman without an engine and without anything of the machine: its own storage, and containers that need no rights."""

from __future__ import annotations

import io
import os
import platform
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

#: Machines that :func:`greeting_program` is written for.
CAN_RUN = platform.machine() == "x86_64"
GREETING = b"Hello from a container\n"


class Podman:
    """``folder`` holds all it knows; its path is short, as podman demands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs a command; the caller looks at the status."""
        own = (f"--root={self.folder}/r", f"--runroot={self.folder}/x", "--storage-driver=vfs")
        how = ("--runtime=runc", "--cgroup-manager=cgroupfs")
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "REGISTRY_AUTH_FILE": str(self.folder / "auth.json"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }
        return subprocess.run(
            ["podman", *own, *how, *words], check=False, env=environment, input=stdin, capture_output=True, timeout=120
        )

    def run(self, image: str) -> subprocess.CompletedProcess[bytes]:
        """The default command of an image, in a container."""
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        return self("run", "--rm", "--pull=never", "--network=host", *limits, image)


@contextmanager
def own_podman() -> Iterator[Podman]:
    """One that begins with nothing."""
    folder = Path(mkdtemp(prefix="pm"))
    (folder / "registries.conf").write_text("")
    (folder / "auth.json").write_text("{}")
    try:
        yield Podman(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def greeting_program() -> bytes:
    """A program for Linux that prints :data:`GREETING`: one segment of code, no library."""
    code = (
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1 (standard output)
        b"\x48\x8d\x35\x10\x00\x00\x00"  # lea rsi, [rip + 16] (what follows the code)
        b"\xba" + struct.pack("<I", len(GREETING)) + b"\x0f\x05"  # mov edx, length; syscall
        b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"  # mov eax, 60 (exit); xor edi, edi; syscall
    )
    base, header_bytes = 0x400000, 64 + 56
    size = header_bytes + len(code) + len(GREETING)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + header_bytes, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + segment + code + GREETING


def greeting_archive() -> bytes:
    """A root file system with the program at ``/hello``, as ``podman import`` takes it."""
    data, archive = greeting_program(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
