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
from urllib3.exceptions import HTTPError

from registry_sync.oci.http.connections import TargetHeaders, _Connection
from registry_sync.oci.http.received import MAX_HEADERS, MAX_LINE_BYTES, HeaderLines, JoinedHeaders, PunctualResponse
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

    monkeypatch.setattr("registry_sync.oci.http.received.parse_headers", refuse)
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nLink: <a>, <b>\r\nlink: <c>\r\nX-Latin: \xe4\r\n\r\n"
    assert isinstance(_read(PunctualResponse, data, "HEAD"), tuple)


def _requested(kind: type[HTTPConnection], method: str, data: bytes, names: Iterable[str]) -> object:
    """What there is to see of the response to a request, or the type of the error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        connection = kind("registry.example")
        connection.response_class = PunctualResponse  # type: ignore[assignment]
        connection.sock = ours
        headers = TargetHeaders({"User-Agent": "a", "Accept-Encoding": "identity"})
        try:
            connection.request(method, "/v2/", headers=headers, preload_content=False)
            response = connection.getresponse()
            body = response.read(3, decode_content=False), response.read1(5, decode_content=False)
            rest = response.read(decode_content=False), response.read1(5, decode_content=False)
        except (ConnectionError, HTTPException, HTTPError, ValueError) as problem:
            return type(problem)
        sent = theirs.recv(4096)
        found = {name: response.headers.get(name) for name in names}
        return sent, response.status, found, body, rest, connection.sock is None


@given(_lines)
def test_a_response_without_a_body_is_as_any_of_urllib3(lines: list[bytes]) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n"
    names = [*_NAMES, *map(str.upper, _NAMES), "X-Odd", "absent"]
    assert _requested(_Connection, "HEAD", data, names) == _requested(HTTPConnection, "HEAD", data, names)


@given(_statuses, _lines, st.sampled_from([b"", b"12345", b"1234567890", b"5\r\n12345\r\n0\r\n\r\n"]))
@settings(**examples())
def test_a_response_that_comes_at_once_is_as_any_of_urllib3(status: bytes, lines: list[bytes], body: bytes) -> None:
    data = status + b"".join(lines) + b"\r\n" + body
    names = [*_NAMES, "X-Odd", "absent"]
    expected, got = (_requested(kind, "GET", data, names) for kind in (HTTPConnection, _Connection))
    # Headers that end with the connection are an error of ours alone.
    assert got in (expected, ConnectionResetError)


@pytest.mark.parametrize("status", [200, 204, 304, 404])
@pytest.mark.parametrize("more", [b"", b"Connection: Close\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("body", [b"", b"1234", b"12345", b"123456", b"5\r\n12345\r\n0\r\n\r\n"])
def test_a_body_that_comes_at_once_is_read_as_far_as_it_goes(status: int, more: bytes, body: bytes) -> None:
    data = b"HTTP/1.1 %d OK\r\nContent-Length: 5\r\n%s\r\n%s" % (status, more, body)
    expected, got = (_requested(kind, "GET", data, ["Content-Length"]) for kind in (HTTPConnection, _Connection))
    assert got == expected


def test_requests_in_a_row_have_the_headers_of_each() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = _Connection("registry.example")
        connection.sock = ours
        sent = []
        for method, token in (("GET", "a"), ("HEAD", "a"), ("GET", "b"), ("GET", "b")):
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.request(method, "/v2/", headers=TargetHeaders({"Accept": "x", "Authorization": token}))
            assert connection.getresponse().read() == b""
            sent.append(theirs.recv(4096))
        with pytest.raises(ValueError, match="Invalid header value"):
            connection.request("GET", "/v2/", headers=TargetHeaders({"Accept": "x\r\ny"}))
    assert sent == [
        b"%s /v2/ HTTP/1.1\r\nHost: registry.example\r\nAccept: x\r\nAuthorization: %s\r\n\r\n" % (method, token)
        for method, token in ((b"GET", b"a"), (b"HEAD", b"a"), (b"GET", b"b"), (b"GET", b"b"))
    ]


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
