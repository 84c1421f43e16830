"""Bounds for clients that open connections and send or read next to nothing, so that they keep nobody else out.

The server itself bounds how long the head of a request may take, and how many connections are open. It has no bound
for a client that does not read: what it and the kernel have taken of a reply is not seen by the app, so that only the
kernel knows how far it is. :class:`SlowReaders` asks it (``TCP_INFO``), for every connection of this process that was
accepted, or for those of some clients alone, and resets those that take too little. Elsewhere than on Linux it does
nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeAlias

from registry_sync.serve import accepted_sockets

_log = logging.getLogger(__name__)
#: Addresses and ports of clients at this time.
Clients: TypeAlias = Callable[[], Collection[tuple[str, int]]]
#: How long the head of a request may take, and how long a connection may wait for the next one, in seconds.
HEAD_SECONDS = 30
#: A client has to take this many bytes in this many seconds, as long as bytes wait for it.
READ_SECONDS = 60
READ_BYTES = 64 * 1024
#: Connections of one worker; more wait until one of them ends. A connection may hold a file besides its socket.
MOST_CONNECTIONS = 8192
#: What the server keeps to itself of a connection's bytes, at most.
BUFFER_BYTES = 128 * 1024
_CHECK_SECONDS = 5.0
#: Files that a worker needs besides its connections: the database, modules, the object store, second descriptors of
#: sockets for large files.
_OWN_FILES = 512


def connection_limit() -> int:
    """How many connections a worker may have; as many open files as the system permits are allowed before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + _OWN_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, (soft - _OWN_FILES) // 2))


class SlowReaders:
    """Remembers since when each client has left bytes waiting, and how many it took since.

    ``clients`` gives the addresses and ports of those that are looked at; None for all.
    """

    def __init__(self, read_seconds: float = READ_SECONDS, clients: Clients | None = None) -> None:
        self._read_seconds = read_seconds
        self._clients = clients
        self._waiting: dict[int, tuple[float, int]] = {}

    def check(self, now: float) -> int:
        """Resets the connections of those that take too little; how many. ``now`` is seconds of a steady clock."""
        waiting: dict[int, tuple[float, int]] = {}
        reset_count = 0
        clients = None if self._clients is None else self._clients()
        if clients is not None and not clients:
            self._waiting = {}
            return 0
        sockets = accepted_sockets.open_sockets
        ports = {connection.getsockname()[1] for connection in sockets() if accepted_sockets.is_listening(connection)}
        for connection in sockets() if ports else ():
            # OSError is a client that is just going away.
            with contextlib.suppress(OSError):
                if accepted_sockets.is_listening(connection) or connection.getsockname()[1] not in ports:
                    continue
                if not accepted_sockets.unread_bytes(connection):
                    continue
                if clients is not None and connection.getpeername()[:2] not in clients:
                    continue
                acked, inode = accepted_sockets.received_bytes(connection), os.fstat(connection.fileno()).st_ino
                since, before = self._waiting.get(inode, (now, acked))
                if now - since < self._read_seconds:
                    waiting[inode] = since, before
                elif acked - before >= READ_BYTES:
                    waiting[inode] = now, acked
                else:
                    accepted_sockets.reset(connection)
                    reset_count += 1
        self._waiting = waiting
        return reset_count


def watch_slow_readers(read_seconds: float, clients: Clients | None = None) -> Callable[[], None]:
    """Checks them in a thread for as long as this process lives, or until what is returned is called."""
    is_over = threading.Event()
    if sys.platform == "linux":
        given = (read_seconds, SlowReaders(read_seconds, clients), is_over)
        threading.Thread(target=_watch, args=given, name="slow readers", daemon=True).start()
    return is_over.set


def _watch(read_seconds: float, readers: SlowReaders, is_over: threading.Event) -> None:
    while not is_over.wait(min(_CHECK_SECONDS, read_seconds / 4)):
        try:
            reset_count = readers.check(time.monotonic())
        except OSError as problem:  # no more open files, for a moment
            _log.warning("slow clients could not be looked for: %s", problem)
            continue
        if reset_count:
            _log.warning(
                "%d clients took less than %d bytes in %d seconds; their connections were reset",
                reset_count,
                READ_BYTES,
                read_seconds,
            )
