"""A registry in memory served over HTTP, so that the real client can be held against the reader in memory.

What is scripted there is sent as a registry would: refusals with codes, ``Retry-After`` and a challenge, pages with a
``Link``, blobs from an offset, bodies that break off.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable

from registry_sync.oci.auth.credentials import Credentials
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, reply
from support.memory_registry import MemoryRegistry, MemoryRequest, MemoryResponse

_ROUTES = (
    ("digests", re.compile(r"/api/v1/repository/(?P<repository>.+)/tag/")),
    ("tags", re.compile(r"/v2/(?P<repository>.+)/tags/list")),
    ("manifest", re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)")),
    ("blob", re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<reference>[^/]+)")),
    ("referrers", re.compile(r"/v2/(?P<repository>.+)/referrers/(?P<reference>[^/]+)")),
)
_LAST = re.compile(r"(?:^|&)(?:last|page)=([^&]*)")


#: Changes or replaces the response to a request, which the second argument gives.
Around = Callable[[Request, Callable[[], Raw]], Raw]


def over_http(registry: MemoryRegistry, around: Around = lambda _request, respond: respond()) -> HostileRegistry:
    """A server that gives what ``registry`` holds and what its scripts say, with ``around`` each response."""

    def respond(request: Request) -> Raw:
        asked = _read(request)
        if asked is None:
            return reply(404)
        return around(request, lambda: _send(registry.respond(asked, _credentials(request)), asked, request.path))

    return HostileRegistry(otherwise=respond)


def _read(request: Request) -> MemoryRequest | None:
    for kind, route in _ROUTES:
        if match := route.fullmatch(request.path):
            names = match.groupdict()
            last = _LAST.search(request.query)
            offset = re.fullmatch(r"bytes=([0-9]+)-", request.header("range") or "")
            return MemoryRequest(
                request.method,
                kind,
                names["repository"],
                names.get("reference", ""),
                last[1] if last else None,
                int(offset[1]) if offset else 0,
            )
    return None


def _credentials(request: Request) -> Credentials | None:
    scheme, _, encoded = (request.header("authorization") or "").partition(" ")
    if scheme != "Basic":
        return None
    username, _, password = base64.b64decode(encoded).decode().partition(":")
    return Credentials(username, password)


def _send(response: MemoryResponse, request: MemoryRequest, path: str) -> Raw:
    if response.status == 0:
        return Raw(())
    headers = []
    if response.retry_after_seconds is not None:
        headers.append(("Retry-After", f"{response.retry_after_seconds:g}"))
    if response.has_challenge:
        headers.append(("WWW-Authenticate", 'Basic realm="tests"'))
    if response.digest is not None:
        headers.append(("Docker-Content-Digest", response.digest))
    if response.has_more:
        document = json.loads(response.data)
        last = document["tags"][-1] if "tags" in document else document["manifests"][-1]["digest"]
        headers.append(("Link", f'<{path}?last={last}>; rel="next"'))
    if response.status >= 400 and not response.data:
        if not response.codes:
            return reply(response.status, response.message, headers, content_type="text/plain")
        return errors_reply(response.status, response.codes[0], response.message, headers)
    if response.status == 206:
        last_byte = request.offset + len(response.data) - 1
        headers.append(("Content-Range", f"bytes {request.offset}-{last_byte}/{last_byte + 1}"))
    is_broken = response.breaks_after is not None
    return reply(
        response.status,
        response.data[: response.breaks_after],
        headers,
        length=len(response.data),
        content_type=response.media_type or "application/json",
        cut=is_broken,
    )
