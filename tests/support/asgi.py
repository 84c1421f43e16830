"""One request to an ASGI app in this process, without a server and a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class AsgiResponse:
    """What the app sent; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of an error of the registry API."""
        return [error["code"] for error in self.json()["errors"]]

    @property
    def next_page(self) -> str | None:
        """The target of the link to the next page."""
        link = self.headers.get("link")
        return None if link is None else link.partition("<")[2].partition(">")[0]


def ask_app(app: Any, method: str, path: str, headers: Mapping[str, str] | None = None) -> AsgiResponse:
    """The response to one request; ``path`` may have a query."""
    target, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(target),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "scheme": "http",
        "server": ("registry.example", 80),
        "client": ("192.0.2.1", 1024),
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start, *rest = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return AsgiResponse(start["status"], found, b"".join(message.get("body", b"") for message in rest))
