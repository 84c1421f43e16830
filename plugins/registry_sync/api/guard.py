"""What happens to a request before a route, and to every response after it.

A request has a credential: a bearer token or the cookie of a session, which the checks of each route judge; or HTTP
Basic with a user's name and password, for which Airflow gives a token here. Browsers send the session's cookie with
requests of foreign pages, so a request with a foreign ``Origin`` is refused whatever its credential, unless Airflow's
own setting for foreign pages allows that origin. A link of a foreign page to one of the pages for people is followed:
reading these changes nothing, and the foreign page can neither frame nor read what its reader then sees.

``HEAD`` is ``GET`` without the body, and every response says what browsers and caches may do with it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry_sync.api.basic_logins import BasicLogins, challenge_of
from registry_sync.api.page_paths import is_page, is_style, path_below_mount
from registry_sync.api.problems import WHOLE, detail, field_problems
from registry_sync.pulp.path_forms import PathForm, current_form
from registry_sync.users.login_limits import HOST

#: Certificates are the largest field; a bundle of all public ones has 220 KB.
MAX_BODY_BYTES = 1024 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Responses are a user's own, and are asked for again before each use (RFC 9111 section 5.2.2).
_HEADERS = {
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_VARY = ("Authorization", "Cookie")
#: Who may show a response in a frame: Airflow, and nobody else.
FRAMES = "frame-ancestors 'self'"
#: What is for everybody: the OpenAPI document, which Pulp's clients read before they log in.
_OPEN = "/api/v3/docs/api.json"
#: Whoever has the secret of a webhook may send to it; it is no login of a user.
_WEBHOOKS = "/api/v3/webhooks/"

_origin: ContextVar[str] = ContextVar("registry_sync_origin", default="")


def list_origin() -> str:
    """What precedes the path of a list's next page: in Pulp's form scheme, host and where Airflow is mounted.

    In the documented form these are paths, and it is empty.
    """
    return "" if current_form() is PathForm.DOCKER else _origin.get()


class Guard:
    """Middleware. ``cookie_name`` is the cookie of a session; ``own_origins`` returns the allowed origins.

    ``logins`` exchanges Basic for a bearer token.
    """

    def __init__(
        self, app: ASGIApp, *, cookie_name: str, own_origins: Callable[[], frozenset[str]], logins: BasicLogins
    ) -> None:
        self._app = app
        self._cookie_name = cookie_name
        self._own_origins = own_origins
        self._logins = logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _finished(scope, send)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        refused = await self._refusal(scope)
        if refused is None:
            _origin.set(self._origin_of(scope))
            await self._app(scope, _bounded(receive), send)
        else:
            await refused(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        """The response to a request that goes no further; None for one that does, with a bearer token for Basic."""
        headers = Headers(scope=scope)
        scheme = headers.get("authorization", "").partition(" ")[0].lower()
        has_login = scheme in ("bearer", "basic") or self._cookie_name in cookie_parser(headers.get("cookie", ""))
        is_notification = _is_notification(scope)
        is_open = is_notification or scope["path"].endswith(_OPEN) or is_style(scope)
        if not has_login and not is_open:
            return detail(401, "Not signed in.")
        if self._is_foreign(headers) and not _is_followed_link(scope, headers):
            return detail(403, "Requests of this page's origin are not allowed.")
        if _length(headers) > MAX_BODY_BYTES:
            return field_problems(WHOLE, _too_large())
        return await self._logins.exchange(scope) if scheme == "basic" and not is_notification else None

    def _origin_of(self, scope: Scope) -> str:
        """As clients reach this server; the scheme of Airflow's own address where a proxy has terminated TLS.

        Empty for a ``Host`` that is none: then links are paths.
        """
        host, path = Headers(scope=scope).get("host", ""), str(scope.get("root_path", "")).removesuffix("/pulp")
        own = {f"https://{host}"} & self._own_origins()
        return f"{next(iter(own), scope['scheme'] + '://' + host)}{path}" if HOST.fullmatch(host) else ""

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site")
        requesting = _host(origin)
        if requesting is None:
            return True
        # The scheme is that of the browser's connection, which a proxy may terminate; host and port are compared.
        here = _host(f"{origin.partition(':')[0]}://{headers.get('host', '')}")
        return requesting not in {here, *(_host(own) for own in self._own_origins())}


def _is_notification(scope: Scope) -> bool:
    return scope["method"] == "POST" and path_below_mount(scope).startswith(_WEBHOOKS)


def _is_followed_link(scope: Scope, headers: Headers) -> bool:
    """Whether a browser opens a page for people in a window of its own: no form, frame, picture or script."""
    is_navigation = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return scope["method"] == "GET" and "origin" not in headers and is_navigation and is_page(scope)


def _finished(scope: Scope, send: Send) -> Send:
    """``send``, with the headers that every response has, and without a body for ``HEAD``."""
    is_head = scope["method"] == "HEAD"

    async def finished(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            for name in _VARY:
                headers.add_vary_header(name)
            policy = headers.get("content-security-policy", "default-src 'none'")
            headers["Content-Security-Policy"] = f"{policy}; {FRAMES}"
            if message["status"] == 401:  # RFC 9110 section 11.6.1
                headers["WWW-Authenticate"] = challenge_of(scope)
            message = {**message, "headers": headers.raw}
        elif is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return finished


def _bounded(receive: Receive) -> Receive:
    """``receive``, refusing a body without a declared length that turns out too large."""
    received_bytes = 0

    async def bounded() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body") or b"")
        if received_bytes > MAX_BODY_BYTES:
            raise HTTPException(400, _too_large())
        return message

    return bounded


def _length(headers: Headers) -> int:
    """The declared length of a body in bytes; 0 without one, and then it is counted as received."""
    said = headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0


def _too_large() -> str:
    return f"The body is larger than {MAX_BODY_BYTES:,} bytes."


def _host(origin: str) -> tuple[str, int | None] | None:
    """Host and port of an origin, by default the scheme's port; None for ``null`` and for an invalid origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
