"""Reads the responses to requests: within a time, and those that come whole at once without more work than that.

Python's own reader limits the silence between two bytes, so that a server could send headers for ever; and its parser
is one of e-mails. What comes in the form of the specification is split at the colon; anything else is left to that
parser.

Most responses of a registry are a few hundred bytes, and come at once. Where what has come is one whole response in the
form of the specification, it is taken as it is; anything else is read by Python and urllib3, from its first byte.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import time
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse, LineTooLong, UnknownProtocol, parse_headers
from typing import Any

#: Python's own bounds of a header line, and of the number of lines.
MAX_LINE_BYTES, MAX_HEADERS = 65536, 100


class _Received(io.RawIOBase):
    """The bytes of a socket, after ``before``; an error after ``deadline`` (monotonic seconds), None for no deadline.

    While ``is_in_headers``, the end of the bytes is an error too: incomplete headers are invalid.
    """

    def __init__(self, raw: io.RawIOBase, before: bytes) -> None:
        super().__init__()
        self._raw = raw
        self._before = memoryview(before)
        self.deadline: float | None = None
        self.is_in_headers = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self._before:
            size = min(len(buffer), len(self._before))
            buffer[:size], self._before = self._before[:size], self._before[size:]
            return size
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError("the headers of a response take too long")
        count = self._raw.readinto(buffer)
        if count == 0 and self.is_in_headers:
            raise ConnectionResetError("the connection ended before the headers of the response")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PlainHeaders(HTTPMessage):
    """Headers of which each is one line in the form of the specification, as most are: nothing is left to interpret.

    Gives what Python's own parser gives for them, without that parser, which is made for e-mails and takes a third of
    the time of a request.
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        self._pairs = self._headers = pairs

    def items(self) -> list[tuple[str, str]]:
        return list(self._pairs)

    def get(self, name: str, failobj: Any = None) -> Any:
        wanted = name.lower()
        return next((value for found, value in self._pairs if found.lower() == wanted), failobj)


#: RFC 9112 section 5, without the obsolete folding of a value over several lines (section 5.2).
_PLAIN_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")
_PLAIN_HEADERS = re.compile(rb"(?:%s\r\n)*\r\n" % _PLAIN_HEADER.pattern)


def _read_headers(received: io.BufferedReader) -> HTTPMessage:
    """The headers up to the empty line. Raises as Python's parser for too many or too long ones, and has its result."""
    lines: list[bytes] = []
    while True:
        line = received.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise LineTooLong("header line")
        lines.append(line)
        if len(lines) > MAX_HEADERS:
            raise HTTPException(f"got more than {MAX_HEADERS} headers")
        if line in (b"\r\n", b"\n", b""):
            break
    block = b"".join(lines)
    if not _PLAIN_HEADERS.fullmatch(block):
        return parse_headers(io.BytesIO(block))
    pairs = (line.split(":", 1) for line in block.decode("iso-8859-1").split("\r\n")[:-2])
    return _PlainHeaders([(name, value.lstrip(" \t")) for name, value in pairs])


class PunctualResponse(HTTPResponse):
    """A response whose complete status line and headers must arrive within the socket's timeout.

    ``received`` are its first bytes, waited for since ``began_at`` (monotonic seconds); None to wait from now on.
    """

    def __init__(
        self,
        sock: socket.socket,
        *arguments: Any,
        received: bytes = b"",
        began_at: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(sock, *arguments, **options)
        self._timeout_seconds = sock.gettimeout()
        self._began_at = began_at
        self._received = _Received(self.fp.detach(), received)
        self.fp = io.BufferedReader(self._received)

    def begin(self) -> None:
        """As Python's, but for the parser of headers. Raises what that raises."""
        if self._timeout_seconds is not None:
            began_at = time.monotonic() if self._began_at is None else self._began_at
            self._received.deadline = began_at + self._timeout_seconds
        self._received.is_in_headers = True
        version, status, reason = self._read_status()  # type: ignore[attr-defined]
        while status == HTTPStatus.CONTINUE:
            _read_headers(self.fp)
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
        self.code = self.status = status
        self.reason = reason.strip()
        if not version.startswith("HTTP/1.") and version != "HTTP/0.9":
            raise UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = self.msg = _read_headers(self.fp)
        self._received.is_in_headers = False
        self._received.deadline = None
        self._delimit_body()

    def _delimit_body(self) -> None:
        """Determines by the headers where the body ends (RFC 9112 section 6.3)."""
        self.chunked = (self.headers.get("transfer-encoding") or "").lower() == "chunked"
        self.chunk_left = None
        self.will_close = self._check_close()  # type: ignore[attr-defined]
        self.length = None
        if not self.chunked:
            with contextlib.suppress(ValueError):
                declared = int(self.headers.get("content-length") or "")
                self.length = declared if declared >= 0 else None
        is_empty = self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) or 100 <= self.status < 200
        if is_empty or self._method == "HEAD":  # type: ignore[attr-defined]
            self.length = 0
        if not self.chunked and self.length is None:
            self.will_close = True


#: A value of a header over several lines, with the white space around each end.
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")


class JoinedHeaders(dict[str, str]):
    """Headers by their names in lower case, repeated ones joined by ``", "``; :meth:`get` takes any case."""

    @classmethod
    def of(cls, message: HTTPMessage) -> JoinedHeaders:
        """Those of a response."""
        found = cls()
        for name, value in message.items():
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        if not isinstance(message, _PlainHeaders):
            found.update({key: _FOLD.sub(" ", value) for key, value in found.items()})
        return found

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


#: So many lines of headers are remembered, none that is longer: responses of a registry differ in few.
_MOST_KNOWN_LINES, _LONGEST_KNOWN_LINE = 256, 256


class HeaderLines:
    """Reads headers of many responses; lines that have come before are not read again."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, str]] = {}

    def read(self, response: bytes) -> JoinedHeaders | None:
        """The headers of a whole response without a body; None unless they are in the form of the specification."""
        lines, known, found = response.split(b"\r\n"), self._known, JoinedHeaders()
        if lines[-2:] != [b"", b""] or len(lines) - 3 >= MAX_HEADERS:
            return None
        for line in lines[1:-2]:
            pair = known.get(line)
            if pair is None:
                if not _PLAIN_HEADER.fullmatch(line):
                    return None
                name, _, value = line.decode("iso-8859-1").partition(":")
                pair = name.lower(), value.lstrip(" \t")
                if len(known) >= _MOST_KNOWN_LINES:
                    known.clear()
                if len(line) <= _LONGEST_KNOWN_LINE:
                    known[line] = pair
            key, text = pair
            found[key] = f"{found[key]}, {text}" if key in found else text
        return found


#: What is read of a response at first: more than most have.
_FIRST_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])[ \r]")
#: Lines of headers that have come before, from whichever registry.
HEADER_LINES = HeaderLines()


class WholeResponse:
    """A response that has come whole, with what Python's connections, urllib3's pools and our responses use of one.

    As nothing of it is left on its connection, that is free for the next request as soon as it is released.
    """

    length_remaining = 0
    will_close = False

    def __init__(self, status: int, version: str, headers: JoinedHeaders, body: bytes = b"") -> None:
        self.status = status
        self.version_string = version
        self.headers = headers
        self.retries: Any = None
        # Set by the pool that the response came from.
        self._connection: Any = None
        self._pool: Any = None
        self._body = body

    @classmethod
    def without_body(cls, received: HTTPResponse) -> WholeResponse:
        """A response to HEAD that Python has read."""
        received.close()
        return cls(received.status, f"HTTP/{received.version / 10}", JoinedHeaders.of(received.headers))

    @classmethod
    def read_from(cls, data: bytes, method: str) -> WholeResponse | None:
        """``data`` as one whole response after which the connection stays open; None where it is anything else."""
        status, end = _STATUS.match(data), data.find(b"\r\n\r\n") + 4
        headers = HEADER_LINES.read(data[:end]) if status is not None and end >= 4 else None
        if status is None or headers is None or "transfer-encoding" in headers:
            return None
        if "close" in headers.get("connection", "").lower():
            return None
        length = "0" if method == "HEAD" or status[1] in (b"204", b"304") else headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 7) or len(data) != end + int(length):
            return None
        return cls(int(status[1]), "HTTP/1.1", headers, data[end:])

    def begin(self) -> None:
        """All of it has been read."""

    def isclosed(self) -> bool:
        """Whether the connection may send another request."""
        return True

    def read(self, amount: int | None = None, decode_content: bool | None = None) -> bytes:  # noqa: ARG002
        data, self._body = self._body[:amount], b"" if amount is None else self._body[amount:]
        return data

    read1 = read

    def close(self) -> None:
        """Closes the connection, unless it was released."""
        if self._connection is not None:
            self._connection.close()

    def release_conn(self) -> None:
        """Gives the connection back to its pool. Safe to repeat."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool._put_conn(connection)  # noqa: SLF001  as urllib3's own responses


def first_response(sock: socket.socket, method: str) -> WholeResponse | PunctualResponse:
    """The response to a request without a body: whole where it has come at once, else still to be read by Python."""
    began_at = time.monotonic()
    data = sock.recv(_FIRST_BYTES)
    return WholeResponse.read_from(data, method) or PunctualResponse(
        sock, method=method, received=data, began_at=began_at
    )
