"""On which ports a process listens, at the cost of its own sockets."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

_SOCKET = re.compile(r"socket:\[(\d+)\]")
#: The state of a socket that listens, in the kernel's tables.
_LISTENS = "0A"
#: Of a line for IPv4, the shortest.
_LINE_BYTES = 150


def listening_ports(pid: int, *, over_ipv6: bool = False) -> set[int]:
    """The TCP ports on which the process listens, of IPv4 or of IPv6; none when it has ended.

    The kernel's table begins with the sockets that listen. It is read no further: in a run of tests thousands of closed
    connections follow, which take tens of milliseconds to read.
    """
    sockets = _sockets(pid)
    return {port for port, inode in _all_listening(over_ipv6=over_ipv6) if inode in sockets} if sockets else set()


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open; none when it has ended."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if match := _SOCKET.fullmatch(str(file.readlink())):
                    found.add(match[1])
    return found


def _all_listening(*, over_ipv6: bool) -> Iterator[tuple[int, str]]:
    """The port and the inode of each socket that listens."""
    with Path("/proc/net/tcp6" if over_ipv6 else "/proc/net/tcp").open("rb", buffering=0) as file:
        for _, local, _, state, *others in itertools.islice(_lines(file), 1, None):
            if state != _LISTENS:
                break
            yield int(local.rpartition(":")[2], 16), others[5]


def _lines(file: FileIO) -> Iterator[list[str]]:
    """The words of each line, of which no more is read than is asked for."""
    text = b""
    while read := file.read(_LINE_BYTES):
        *lines, text = (text + read).split(b"\n")
        for line in lines:
            yield line.decode().split()
