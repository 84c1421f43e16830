"""Which paths are those of pages for people, not of the REST API."""

from __future__ import annotations

from starlette.types import Scope

_STATIC = "/pages/static/"
_PAGES = ("/pages", "/documentation")


def path_below_mount(scope: Scope, *, is_encoded: bool = False) -> str:
    """The path of a request below where the app is mounted, with its first slash; ``is_encoded``, as it was sent."""
    path = str(scope["path"])
    if is_encoded:
        path = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1") or path
    return path.removeprefix(str(scope.get("root_path", "")))


def is_page(scope: Scope) -> bool:
    """Whether the request is for a page that a person sees, or for something below the address of pages."""
    below = path_below_mount(scope)
    return any(below == page or below.startswith(f"{page}/") for page in _PAGES)


def is_style(scope: Scope) -> bool:
    """Whether the request reads the style and the script of pages, which are for everybody."""
    return scope["method"] in ("GET", "HEAD") and path_below_mount(scope).startswith(_STATIC)
