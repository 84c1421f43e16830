"""What the kernel knows of the connections that this process accepted, whose sockets are the server's.

They are looked at through copies (dup(2)), as the server may close its own at any time. For Linux: elsewhere there is
no ``/proc/self/fd``, and :class:`OSError` is raised.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

_FILES = Path("/proc/self/fd")
#: ``tcpi_bytes_acked`` of ``struct tcp_info`` (linux/tcp.h), what the other side has received.
_ACKED_OFFSET = 120
_Ends: TypeAlias = tuple[tuple[str, int], int]


def open_sockets() -> Iterator[socket.socket]:
    """The TCP sockets of this process, one after the other as copies that live until the next one."""
    for number in _open_files():
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                copy = socket.socket(fileno=os.dup(number))
                with copy:
                    if _is_tcp(copy):
                        yield copy


class AcceptedSockets:
    """Finds the socket of a client; what it saw of others is remembered, as neither side of a socket changes."""

    def __init__(self) -> None:
        self._ends: dict[int, _Ends | None] = {}

    def copy_of(self, client: tuple[str, int], server_port: int, most_files: int) -> socket.socket | None:
        """A copy of the socket of the connection from the address and port ``client`` to ``server_port``.

        None if there is none, more than one, or more than ``most_files`` files to look at. The caller closes it.
        """
        numbers = _open_files()
        if len(numbers) > most_files:
            return None
        seen: dict[int, _Ends | None] = {}
        found: dict[int, int] = {}
        for number in numbers:
            with contextlib.suppress(OSError):
                status = os.fstat(number)
                if stat.S_ISSOCK(status.st_mode):
                    inode = status.st_ino
                    seen[inode] = self._ends[inode] if inode in self._ends else _ends(number)
                    if seen[inode] == (client, server_port):
                        found[inode] = number
        self._ends = seen
        if len(found) != 1:
            return None
        copy = socket.socket(fileno=os.dup(found.popitem()[1]))
        # The server may have closed it meanwhile, and something else have its number.
        if _is_tcp(copy) and (copy.getpeername()[:2], copy.getsockname()[1]) == (client, server_port):
            return copy
        copy.close()
        return None


def _open_files() -> list[int]:
    return [int(name) for name in os.listdir(_FILES)]  # noqa: PTH208 - names alone, and no path for each of thousands


def _ends(number: int) -> _Ends | None:
    """Address and port of the other side, and the port of this one; None for what is no accepted connection."""
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            return (copy.getpeername()[:2], copy.getsockname()[1]) if _is_tcp(copy) else None
        except OSError:  # it listens, or is just going away
            return None


def _is_tcp(connection: socket.socket) -> bool:
    return connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM


def is_listening(connection: socket.socket) -> bool:
    """Whether it accepts connections."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def unread_bytes(connection: socket.socket) -> int:
    """Bytes that were written to the kernel and that the other side has not received."""
    (count,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def received_bytes(connection: socket.socket) -> int:
    """Bytes that the other side has received."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_OFFSET + 8)
    (count,) = struct.unpack_from("Q", info, _ACKED_OFFSET)
    return int(count)


def written_bytes(connection: socket.socket) -> int:
    """Bytes that were written to the kernel so far, or fewer while the other side receives some of them."""
    return received_bytes(connection) + unread_bytes(connection)


def reset(connection: socket.socket) -> None:
    """Ends it at once, and drops what waits for the client, who reads nothing of it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
