"""Ports that are free, and those that are not."""

from __future__ import annotations

import socket

from local_airflow.ports import free_port, is_taken


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert is_taken(server.getsockname()[1])


def test_a_port_is_free_again_when_its_server_is_gone() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]
    assert not is_taken(port)


def test_two_requests_at_once_are_hardly_given_the_same() -> None:
    assert len({free_port() for _ in range(20)}) > 15
