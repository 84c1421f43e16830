"""TLS sockets that Python leaves open, closed: before 3.13 those whose peer reset the connection before the handshake.

``SSLContext.wrap_socket`` raises what it read then, and nobody has the new socket, so that nobody can close it: no
client, no server, no test. It is collected with the exception, at any later time, and its warning would fail an
unrelated test. A socket that somebody got and left open warns as ever.
"""

from __future__ import annotations

import ssl


class _ClosedWhenReset(ssl.SSLSocket):
    def __del__(self) -> None:
        if not hasattr(self, "_connected"):  # set before the handshake, and never where the constructor read a reset
            self.close()
        super().__del__()  # type: ignore[misc]  # of the socket in C: it warns


def close_those_reset() -> None:
    """From now on, in this process."""
    ssl.SSLContext.sslsocket_class = _ClosedWhenReset
