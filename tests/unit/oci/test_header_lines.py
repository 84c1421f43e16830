"""The headers of a response are read as Python reads them: whatever a server sends, only the time differs."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable
from http.client import HTTPException, HTTPMessage, HTTPResponse, parse_headers

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.connection import HTTPConnection

from registry_sync.oci.http.connections import (
    MAX_HEADERS,
    MAX_LINE_BYTES,
    HeaderLines,
    JoinedHeaders,
    PunctualResponse,
    TargetHeaders,
    _Connection,
)
from support.examples import examples

_NAMES = ("Content-Length", "Transfer-Encoding", "Connection", "Content-Type", "Keep-Alive", "X-A", "x-a", "")
_VALUES = (
    "0",
    "5",
    "-1",
    "x",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "close",
    "keep-alive",
    "multipart/mixed",
    " a\t ",
)
_odd = st.binary(max_size=12)
_lines = st.lists(
    st.one_of(
        st.builds(
            lambda name, colon, value, end: name.encode() + colon + value.encode() + end,
            st.sampled_from(_NAMES),
            st.sampled_from([b":", b": ", b" :", b""]),
            st.sampled_from(_VALUES),
            st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n folded\r\n", b"\r"]),
        ),
        st.builds(lambda data: b"X-Odd: " + data + b"\r\n", _odd),
        _odd,
    ),
    max_size=5,
)
_statuses = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200\r\n",
        b"HTTP/1.1 204 No\r\n",
        b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 304 Same\r\n",
        b"HTTP/2 200 OK\r\n",
        b"HTTP/0.9 200 OK\r\n",
        b"ICY 200 OK\r\n",
        b"HTTP/1.1 abc OK\r\n",
    ]
)


def _read(kind: type[HTTPResponse], data: bytes, method: str) -> object:
    """What there is to see of a response, or the type of the error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        response = kind(ours, method=method)
        try:
            response.begin()
        except ConnectionError:  # RemoteDisconnected, which is a BadStatusLine, too
            return ConnectionError
        except (HTTPException, ValueError) as problem:
            return type(problem)
        finally:
            response.close()
    headers = response.headers
    names = {name for name, _ in headers.items()}
    return (
        (response.status, response.reason, response.version, response.chunked, response.length, response.will_close),
        headers.items(),
        {name: (headers.get(name), headers.get_all(name)) for name in {*names, "content-length", "absent"}},
    )


@given(_statuses, _lines, st.sampled_from(["GET", "HEAD"]))
def test_every_block_of_headers_is_read_as_python_reads_it(status: bytes, lines: list[bytes], method: str) -> None:
    data = status + b"".join(lines) + b"\r\n"
    expected, got = _read(HTTPResponse, data, method), _read(PunctualResponse, data, method)
    # Headers that end with the connection are an error here alone.
    assert got in (expected, ConnectionError)


@pytest.mark.parametrize("block", [b"X: " + b"a" * MAX_LINE_BYTES + b"\r\n", b"X: a\r\n" * (MAX_HEADERS + 1)])
def test_too_much_is_the_same_error(block: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + block + b"\r\n"
    expected = _read(HTTPResponse, data, "GET")
    assert isinstance(expected, type)
    assert _read(PunctualResponse, data, "GET") is expected


def test_plain_lines_need_no_parser_of_emails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> HTTPMessage:
        raise AssertionError("the parser was used")

    monkeypatch.setattr("registry_sync.oci.http.connections.parse_headers", refuse)
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nLink: <a>, <b>\r\nlink: <c>\r\nX-Latin: \xe4\r\n\r\n"
    assert isinstance(_read(PunctualResponse, data, "HEAD"), tuple)


def _head(kind: type[HTTPConnection], data: bytes, names: Iterable[str]) -> object:
    """What there is to see of the response to a HEAD, or the type of the error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        connection = kind("registry.example")
        connection.response_class = PunctualResponse  # type: ignore[assignment]
        connection.sock = ours
        headers = TargetHeaders({"User-Agent": "a", "Accept-Encoding": "identity"})
        try:
            connection.request("HEAD", "/v2/", headers=headers)
            response = connection.getresponse()
        except (ConnectionError, HTTPException, ValueError) as problem:
            return type(problem)
        sent = theirs.recv(4096)
        found = {name: response.headers.get(name) for name in names}
        return sent, response.status, found, response.read(), response.read1(5, decode_content=False)


@given(_lines)
def test_a_response_without_a_body_is_as_any_of_urllib3(lines: list[bytes]) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n"
    names = [*_NAMES, *map(str.upper, _NAMES), "X-Odd", "absent"]
    assert _head(_Connection, data, names) == _head(HTTPConnection, data, names)


@given(st.lists(_lines, min_size=1, max_size=4))
@settings(**examples())
def test_lines_that_have_come_before_are_read_as_python_reads_them(responses: list[list[bytes]]) -> None:
    reader = HeaderLines()
    for lines in responses:
        block = b"".join(lines) + b"\r\n"
        found = reader.read(b"HTTP/1.1 200 OK\r\n" + block)
        if found is not None:
            assert found == JoinedHeaders.of(parse_headers(io.BytesIO(block)))


def test_a_long_line_is_read_and_not_kept_and_the_others_are_kept_within_bounds() -> None:
    reader = HeaderLines()
    for number in range(2000):
        block = f"X-A: {number}\r\nX-B: {'b' * 1000}\r\nX-C: c\r\n\r\n".encode()
        found = reader.read(b"HTTP/1.1 200 OK\r\n" + block)
        assert found == {"x-a": str(number), "x-b": "b" * 1000, "x-c": "c"}
    assert len(reader._known) <= 256
    assert all(len(line) <= 256 for line in reader._known)
