"""The documentation of the installed release, as pages of Airflow's API server.

Airflow's list of providers links to it. The pages are the Markdown files of ``docs``, which a wheel has beside the
package's modules and a checkout in its root; a plugins folder has none. A link to another file, such as one of the
source code, is shown as its text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

import registry_sync
from registry_sync import __version__
from registry_sync.api.access import SIGNED_IN
from registry_sync.api.dependencies import Router
from registry_sync.api.pages.rendering import HEADERS, rendered

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_PACKAGE = Path(registry_sync.__file__).parent
_FOLDERS = (_PACKAGE / "documentation", _PACKAGE.parents[1] / "docs")
INDEX = "README.md"
#: Files beside the pages, by the ends of their names.
_FILES = {".png": "image/png", ".svg": "image/svg+xml", ".py": "text/plain; charset=utf-8"}
#: Columns of tables have their alignment in their own attributes.
_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self'; base-uri 'none'",
}

router = Router(prefix="/documentation", tags=["docs"])


@router.get("", dependencies=SIGNED_IN, include_in_schema=False)
def read_documentation() -> RedirectResponse:
    """To the index, relative to whatever address the API server has."""
    return RedirectResponse("documentation/")


@router.get("/{path:path}", dependencies=SIGNED_IN, include_in_schema=False)
def read_documentation_page(path: str) -> Response:
    """A page, a picture or an example."""
    folder = documentation_folder()
    if folder is None:
        raise HTTPException(404, "This installation has no documentation: a plugins folder holds the package alone.")
    found = None if "\0" in path else (folder / (path or INDEX)).resolve()
    if found is not None and found.is_file() and found.is_relative_to(folder):
        if found.suffix == ".md":
            return HTMLResponse(page(folder, found), headers=_HEADERS)
        if found.suffix in _FILES:
            return FileResponse(found, media_type=_FILES[found.suffix])
    raise HTTPException(404, "There is no such page.")


def documentation_folder() -> Path | None:
    """Where the pages are; None where the installation has none."""
    return next((folder.resolve() for folder in _FOLDERS if (folder / INDEX).is_file()), None)


@cache
def page(folder: Path, file: Path) -> str:
    """The HTML of the Markdown page ``file`` of ``folder``."""
    place = file.relative_to(folder).as_posix()
    tokens = _parser().parse(file.read_text(encoding="utf-8"))
    title = next((token.content for token in tokens if token.type == "inline"), place)
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", anchor(inline.content))
        _unlink_others(inline.children or (), folder, file.parent)
    index = posixpath.relpath(INDEX, posixpath.dirname(place) or ".")
    return rendered(
        "documentation.html",
        up=f"{index.removesuffix(INDEX)}../pages/",
        title=title,
        index=index,
        release=__version__,
        content=_parser().renderer.render(tokens, _parser().options, {}),
    )


def anchor(title: str) -> str:
    """The anchor of a title, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _unlink_others(tokens: Sequence[Token], folder: Path, here: Path) -> None:
    """Takes the addresses from links to files that are not part of the documentation."""
    for token in tokens:
        address = str(token.attrs.get("href", "#"))
        target = (here / address.partition("#")[0]).resolve()
        if "://" not in address and not address.startswith("#"):
            if target.is_dir():
                target /= INDEX
            if not (target.is_file() and target.is_relative_to(folder)):
                del token.attrs["href"]


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")
