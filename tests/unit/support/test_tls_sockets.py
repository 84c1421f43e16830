"""A TLS connection that was reset before its handshake leaves no socket; others that nobody closed still warn."""

from __future__ import annotations

import gc
import select
import socket
import ssl
import struct
import threading
import warnings
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

_RESETS_WHEN_CLOSED = struct.pack("ii", 1, 0)


class _Late(ssl.SSLContext):
    """Wraps a socket as soon as its peer, told so by ``is_connected``, has reset the connection."""

    is_connected: threading.Event

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        self.is_connected.set()
        poll = select.poll()
        poll.register(sock, 0)  # errors alone
        assert poll.poll(10_000)
        return super().wrap_socket(sock, *arguments, **options)


class _Adapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)


def _warnings_of_garbage() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    return [str(warning.message) for warning in caught]


@pytest.mark.slow
def test_a_client_whose_connection_is_reset_before_the_handshake_leaves_no_socket() -> None:
    context = _Late(ssl.PROTOCOL_TLS_CLIENT)
    context.is_connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            with listener.accept()[0] as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS_WHEN_CLOSED)
                context.is_connected.wait(10)

        server = threading.Thread(target=reset)
        server.start()
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", _Adapter(context))
            with pytest.raises(requests.ConnectionError, match="reset by peer"):
                session.get(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout=10)
        server.join()
    assert _warnings_of_garbage() == []


@pytest.mark.slow
def test_a_server_whose_client_resets_before_the_handshake_leaves_no_socket() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS_WHEN_CLOSED)
            connection, _ = listener.accept()
        with pytest.raises(ConnectionResetError):
            context.wrap_socket(connection, server_side=True)
    assert _warnings_of_garbage() == []


@pytest.mark.slow
def test_a_socket_that_somebody_left_open_warns() -> None:
    one, other = socket.socketpair()
    with other:
        left = ssl.create_default_context().wrap_socket(one, server_hostname="host", do_handshake_on_connect=False)
        cycle: list[Any] = [left]
        cycle.append(cycle)
        del left, cycle
        (warning,) = _warnings_of_garbage()
    assert warning.startswith("unclosed <")
