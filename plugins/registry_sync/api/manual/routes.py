"""``/docs/``: the OpenAPI document for programs, and as a page for people, without anything from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from registry_sync.api.access import SIGNED_IN
from registry_sync.api.dependencies import Router

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
summary { cursor: pointer; padding: .3rem 0 } summary code { font-weight: 600 }
details { border-bottom: 1px solid #8884 } details > :not(summary) { margin-left: 1.5rem }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }
pre { overflow-x: auto; background: #8881; padding: .7rem } .method { display: inline-block; width: 4.5rem }
"""


def render(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI 3.1 document."""
    server = document["servers"][0]["url"].rstrip("/")
    info = document["info"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(info['title'])} REST API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} REST API {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        f"<p>For programs: <a href='{escape(server)}/api/v3/docs/api.json'>the OpenAPI document</a>.</p>",
    ]
    for tag, operations in _by_tag(document).items():
        parts.append(f"<h2>{escape(tag)}</h2>")
        parts += [_operation(server, *operation) for operation in operations]
    parts.append("<h2>documents</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        shown = json.dumps(schema, indent=2)
        parts.append(
            f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>"
            f"<pre>{escape(shown)}</pre></details>"
        )
    return "\n".join([*parts, "</body></html>"])


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    return by_tag


def _operation(server: str, method: str, path: str, operation: Mapping[str, Any]) -> str:
    shown = escape(server + path)
    if method == "get" and "{" not in path:
        shown = f"<a href='{shown}'>{shown}</a>"
    lines = [
        f"<details><summary><code class='method'>{method.upper()}</code> <code>{shown}</code>",
        f"{escape(operation.get('summary', ''))}</summary>",
        f"<p>{escape(operation.get('description', ''))}</p>",
    ]
    rows = list(_parameter_rows(operation))
    if rows:
        lines.append(f"<table><tr><th>parameter</th><th>in</th><th></th></tr>{''.join(rows)}</table>")
    if "requestBody" in operation:
        lines.append(f"<p>Body: {_schema_link(operation['requestBody'])}</p>")
    responses = (
        f"<tr><td>{escape(status)}</td><td>{escape(response['description'])}</td><td>{_schema_link(response)}</td></tr>"
        for status, response in operation["responses"].items()
    )
    lines.append(f"<table><tr><th>answer</th><th></th><th></th></tr>{''.join(responses)}</table></details>")
    return "".join(lines)


def _parameter_rows(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        text = parameter.get("description", "")
        name, where = escape(parameter["name"]), escape(parameter["in"])
        yield f"<tr><td><code>{name}</code></td><td>{where}</td><td>{escape(text)}</td></tr>"


def _schema_link(holder: Mapping[str, Any]) -> str:
    """The name of the document in a body or an answer, linked; empty when there is none."""
    for media in holder.get("content", {}).values():
        name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name:
            return f"<a href='#{escape(name)}'><code>{escape(name)}</code></a>"
    return ""


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
