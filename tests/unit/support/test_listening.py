"""Where a process listens is found among many connections of others."""

from __future__ import annotations

import os
import socket

from support.listening import listening_ports


def test_each_port_on_which_a_process_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        found = listening_ports(os.getpid())
        assert {one.getsockname()[1], other.getsockname()[1]} <= found
        with socket.create_connection(one.getsockname()) as connection:
            assert connection.getsockname()[1] not in listening_ports(os.getpid())


def test_ports_of_ipv6_are_apart() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert port in listening_ports(os.getpid(), over_ipv6=True)
        assert port not in listening_ports(os.getpid())


def test_a_process_that_is_not_there_listens_nowhere() -> None:
    assert listening_ports(2**22 + 1) == set()
