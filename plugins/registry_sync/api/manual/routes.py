"""``/docs/``: the OpenAPI document for programs, and as a page for people, without anything from elsewhere."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from registry_sync.api.access import SIGNED_IN
from registry_sync.api.manual.page import render
from registry_sync.api.threads import Router

router = Router(prefix="/docs", tags=["docs"])
#: The page loads nothing and runs nothing.
_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


@router.get("/api.json", dependencies=SIGNED_IN)
def read_openapi(request: Request) -> dict[str, Any]:
    """The API as an OpenAPI document."""
    return _document(request)


@router.get("/", dependencies=SIGNED_IN, response_class=HTMLResponse)
def read_page(request: Request) -> HTMLResponse:
    """The API as a page."""
    return HTMLResponse(render(_document(request)), headers=_PAGE_HEADERS)


def _document(request: Request) -> dict[str, Any]:
    """With the server that paths are relative to: where the app is mounted."""
    return {**request.app.openapi(), "servers": [{"url": request.scope.get("root_path") or "/"}]}
