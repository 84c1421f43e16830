"""The end of the pull server: while downloads under way end, whoever comes anew is told to try again.

The workers close their sockets as soon as they are told to stop, and a new connection would be refused. So the first
process binds the port as well, from the start, and listens there only while the workers end (SO_REUSEPORT, socket(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http import HTTPStatus

from registry_sync.errors import ConfigurationError
from registry_sync.serve.replies import SAFE_HEADERS, unavailable

#: How long a client may take to send its request, in seconds.
_REQUEST_SECONDS = 5.0
_BACKLOG = 1024


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that is bound to the address and does not listen; the port is a free one for 0.

    Others can listen beside it. Raises :class:`ConfigurationError` when a program listens there already.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:  # two that share a port would not notice each other
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as problem:
        raise ConfigurationError(f"cannot serve on port {port} of {host}: {problem.strerror}") from None
    return reserved


@contextlib.contextmanager
def refusing(reserved: socket.socket, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """Answers every request to ``reserved`` with 503 while the block runs."""
    loop = asyncio.new_event_loop()
    reserved.listen(_BACKLOG)
    reserved.setblocking(False)
    server = loop.run_until_complete(asyncio.start_server(_refuse, sock=reserved, ssl=tls))
    thread = threading.Thread(target=loop.run_forever, name="refusals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:  # of none, gather would make a future of another loop
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_SECONDS)
        writer.write(_refusal(with_body=not request.startswith(b"HEAD ")))
        await writer.drain()
    writer.close()


def _refusal(*, with_body: bool) -> bytes:
    reply = unavailable("the server is stopping; try again", 5).reply()
    body = reply.body if isinstance(reply.body, bytes) else b""
    headers = {**SAFE_HEADERS, **reply.headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body if with_body else b"")
