"""Ports on the loopback address."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"


#: Below the ephemeral ports of Linux (ip_local_port_range), so that no program gets one by chance meanwhile.
_RANGE = range(20_000, 32_000)


def free_port() -> int:
    """A port on which no program listens, for a server that takes some seconds to start."""
    ports = random.sample(_RANGE, len(_RANGE))
    return next(port for port in ports if not is_taken(port))


def is_taken(port: int) -> bool:
    """Whether a server cannot listen on ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False
