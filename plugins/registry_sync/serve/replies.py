"""Replies of the registry API: headers, error bodies and ranges.

A reply says its ``Content-Length`` before its first byte, and a body that turns out shorter ends the connection: a
client never takes a part for the whole. HEAD has every header of GET (distribution specification, "Pulling").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry_sync.serve.blob_bodies import BlobBody, Receive, Send

if TYPE_CHECKING:
    from registry_sync.serve.file_sender import FileSender

Scope = MutableMapping[str, Any]

#: What is served was made by strangers, and may be served on the host of a web page (OWASP, stored XSS).
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Docker-Distribution-Api-Version": "registry/2.0",
}
_SAFE_PAIRS = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in SAFE_HEADERS.items()]
_RANGE = re.compile(r"(?i:bytes)=(?:(?P<first>[0-9]+)-(?P<last>[0-9]+)?|-(?P<suffix>[0-9]+))")
#: No blob has so many bytes.
_MOST_BYTES = 10**18


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


@dataclass
class Reply:
    """Status, body and headers; ``Content-Length`` is set from the body. ``code`` is that of an error."""

    status: int
    body: bytes | BlobBody = b""
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None

    async def send(self, scope: Scope, receive: Receive, send: Send, files: FileSender | None = None) -> int:
        """Sends it to the client, by ``files`` if they can; how many bytes of body went. Raises :class:`BodyCut`."""
        body = self.body
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        length = body.length if isinstance(body, BlobBody) else len(body)
        if self.status != 304:
            pairs.append((b"content-length", b"%d" % length))
        pairs = _SAFE_PAIRS + pairs
        is_empty = scope["method"] == "HEAD" or self.status == 304
        if files is not None:
            if isinstance(body, BlobBody) and not is_empty:
                sent_bytes = await files.send(scope, self.status, pairs, body)
                if sent_bytes is not None:
                    return sent_bytes
            files.note(scope, self.status, pairs, 0 if is_empty else length)
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        if is_empty:
            await send({"type": "http.response.body", "body": b""})
            return 0
        if isinstance(body, BlobBody):
            return await body.send(receive, send)
        await send({"type": "http.response.body", "body": body})
        return len(body)


def requested_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Offset and length of the one range that is asked for; None to send the whole (RFC 9110 section 14.2).

    Other units, several ranges and what cannot be read are ignored, as a server may. Raises :class:`PullError` with
    416 for a range that begins behind the end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    first, last, suffix = (_clamped(found[name]) for name in ("first", "last", "suffix"))
    if suffix is not None:
        length = min(suffix, size_bytes)
        offset = size_bytes - length
    else:
        offset = first or 0
        if last is not None and last < offset:
            return None
        length = min(size_bytes if last is None else last + 1, size_bytes) - offset
    if length <= 0:
        raise PullError(
            416, "RANGE_INVALID", "the range begins behind the end", {"Content-Range": f"bytes */{size_bytes}"}
        )
    return offset, length


def _clamped(digits: str | None) -> int | None:
    """The number, or one behind the end of any blob for those that are longer."""
    if digits is None:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < len(str(_MOST_BYTES)) else _MOST_BYTES


def is_unchanged(headers: Mapping[str, str], etag: str) -> bool:
    """Whether ``If-None-Match`` names ``etag`` (RFC 9110 section 13.1.2, weak comparison)."""
    given = headers.get("if-none-match")
    if given is None:
        return False
    return given.strip() == "*" or any(part.strip().removeprefix("W/") == etag for part in given.split(","))
