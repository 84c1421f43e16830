"""Errors below the pages and the documentation, as pages: people see them in a frame of Airflow.

Whatever refuses a request there, the guard, a check of rights, a parameter or a defect, says why in the JSON of
:mod:`registry_sync.api.problems`; here it becomes a page with the same status and headers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from registry_sync.api.guard import FRAMES
from registry_sync.api.page_paths import path_below_mount
from registry_sync.api.pages.rendering import HEADERS, rendered

_NO_RIGHT = "You may not see this: it takes the right to read the DAG that syncs, and its runs."
#: What Airflow's checks say, and FastAPI of a path that it has not.
_IN_WORDS = {"Forbidden": _NO_RIGHT, "Not Found": "There is no such page."}


def with_problem_pages(scope: Scope, send: Send) -> Send:
    """``send``, with errors in JSON as pages."""
    started: list[Message] = []
    body = bytearray()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            started.append(message)
            return
        if not started or message["type"] != "http.response.body":
            await send(message)
            return
        body.extend(message.get("body", b""))
        if not message.get("more_body"):
            start = started.pop()
            text = _page(scope, start["status"], _reason(bytes(body))).encode()
            headers = MutableHeaders(raw=list(start["headers"]))
            headers.update({**HEADERS, "Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(text))})
            headers["Content-Security-Policy"] += f"; {FRAMES}"
            await send({**start, "headers": headers.raw})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})

    return sending


def _is_problem(start: Message) -> bool:
    is_json = MutableHeaders(raw=list(start["headers"])).get("content-type", "").startswith("application/json")
    return bool(start["status"] >= 400 and is_json)


def _page(scope: Scope, status: int, reason: str) -> str:
    folders = path_below_mount(scope, is_encoded=True).count("/") - 1
    query = scope.get("query_string", b"").decode("latin-1")
    target = f"{scope['path']}{'?' if query else ''}{query}"
    login = f"api/v2/auth/login?{urlencode({'next': target})}" if status == 401 else None
    title = "Sign in" if status == 401 else HTTPStatus(status).phrase
    return rendered("problem.html", up="../" * folders + "pages/", title=title, reason=reason, login=login)


def _reason(body: bytes) -> str:
    """The sentences of a problem; empty for the response to ``HEAD``."""
    said: Mapping[str, Any] = json.loads(body or b"{}")
    if set(said) == {"detail"}:
        return _IN_WORDS.get(str(said["detail"]), str(said["detail"]))
    return " ".join(f"{field}: {' '.join(messages)}" for field, messages in said.items())
