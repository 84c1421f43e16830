"""Replies of the registry API: error bodies, ranges, and bytes sent by the fastest way that the server has.

A reply says its ``Content-Length`` before its first byte, and a body that turns out shorter ends the connection: a
client never takes a part for the whole. HEAD has every header of GET (distribution specification, "Pulling").
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Some of them wait in the server for each client, so that their size decides the memory of many clients at once.
CHUNK_BYTES = 64 * 1024
#: What is served was made by strangers, and may be served on the host of a web page (OWASP, stored XSS).
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Docker-Distribution-Api-Version": "registry/2.0",
}
_RANGE = re.compile(r"bytes=(?:(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})?|-(?P<suffix>[0-9]{1,18}))")


class PullError(Exception):
    """A request that is refused: its status, code (distribution specification, "Error Codes") and message."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def reply(self) -> Reply:
        """As it is sent."""
        body = json.dumps({"errors": [{"code": self.code, "message": self.message, "detail": None}]}).encode()
        return Reply(self.status, body, {"Content-Type": "application/json", **self.headers}, self.code)


def unavailable(message: str, seconds: float, *, status: int = 503) -> PullError:
    """A refusal for now: the client may try again after ``seconds``, at least one."""
    return PullError(status, "UNAVAILABLE", message, {"Retry-After": str(max(1, round(seconds)))})


class ComingBytes(Protocol):
    """Bytes that come from elsewhere while they are sent on."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """All of them. Raises :class:`BodyCut`."""

    def close(self) -> None:
        """No more are wanted."""


@dataclass
class BlobBody:
    """``length`` bytes from ``offset`` of a blob of ``size_bytes``: a local file, or what ``open`` gives.

    Those of ``coming`` are being downloaded: it is closed once they were sent, or will not be.
    """

    size_bytes: int
    offset: int
    length: int
    path: Path | None = None
    open: Callable[[], AbstractContextManager[BinaryIO]] | None = None
    coming: ComingBytes | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.offset == 0 and self.length == self.size_bytes


@dataclass
class Reply:
    """Status, body and headers; ``Content-Length`` is set from the body. ``code`` is that of an error."""

    status: int
    body: bytes | BlobBody = b""
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None

    async def send(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Sends it to the client; how many bytes of body went."""
        length = self.body.length if isinstance(self.body, BlobBody) else len(self.body)
        headers = {**SAFE_HEADERS, **self.headers}
        if self.status != 304:
            headers["Content-Length"] = str(length)
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        if scope["method"] == "HEAD" or self.status == 304:
            await send({"type": "http.response.body", "body": b""})
            return 0
        if isinstance(self.body, bytes):
            await send({"type": "http.response.body", "body": self.body})
        elif (
            self.body.is_whole
            and self.body.path is not None
            and "http.response.pathsend" in scope.get("extensions", {})
        ):
            await send({"type": "http.response.pathsend", "path": str(self.body.path)})
        else:
            # A server takes what is sent to a client that has gone, and drops it: without asking, all would be read.
            gone = asyncio.ensure_future(_client_gone(receive))
            try:
                if self.body.coming is not None:
                    return length - await _send_coming(self.body.coming, length, send, gone)
                return length - await _send_chunks(self.body, send, gone)
            finally:
                gone.cancel()
        return length


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_chunks(body: BlobBody, send: Send, gone: asyncio.Future[None]) -> int:
    """Reads a chunk at a time, in a thread; how many bytes were left when the client went. Raises for a short file."""
    loop = asyncio.get_running_loop()
    chunks = _chunks(body)
    left = body.length
    try:
        while left and not gone.done():
            chunk = await loop.run_in_executor(None, next, chunks, b"")
            if not chunk:
                raise BodyCut(f"{left} of {body.length} bytes are missing")
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
    finally:
        await loop.run_in_executor(None, chunks.close)
    if body.length == 0:
        await send({"type": "http.response.body", "body": b""})
    return left


async def _send_coming(coming: ComingBytes, length: int, send: Send, gone: asyncio.Future[None]) -> int:
    left = length
    try:
        async with aclosing(coming.chunks()) as chunks:
            async for chunk in chunks:
                if gone.done():
                    break
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
    finally:
        coming.close()
    if length == 0:
        await send({"type": "http.response.body", "body": b""})
    return left


class BodyCut(Exception):
    """A body that ended before its ``Content-Length``: the connection has to end with it."""


def _chunks(body: BlobBody) -> Generator[bytes, None, None]:
    opened = body.path.open("rb") if body.path is not None else body.open()  # type: ignore[misc]
    with opened as source:
        source.seek(body.offset)
        left = body.length
        while left:
            chunk = source.read(min(CHUNK_BYTES, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk


def requested_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Offset and length of the one range that is asked for; None to send the whole (RFC 9110 section 14.2).

    Other units, several ranges and what cannot be read are ignored, as a server may. Raises :class:`PullError` with
    416 for a range that begins behind the end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    if found["suffix"] is not None:
        length = min(int(found["suffix"]), size_bytes)
        offset = size_bytes - length
    else:
        offset = int(found["first"])
        last = min(int(found["last"]), size_bytes - 1) if found["last"] else size_bytes - 1
        if found["last"] and int(found["last"]) < offset:
            return None
        length = last - offset + 1
    if length <= 0:
        raise PullError(
            416, "RANGE_INVALID", "the range begins behind the end", {"Content-Range": f"bytes */{size_bytes}"}
        )
    return offset, length


def is_unchanged(headers: Mapping[str, str], etag: str) -> bool:
    """Whether ``If-None-Match`` names ``etag`` (RFC 9110 section 13.1.2, weak comparison)."""
    given = headers.get("if-none-match")
    if given is None:
        return False
    return given.strip() == "*" or any(part.strip().removeprefix("W/") == etag for part in given.split(","))
