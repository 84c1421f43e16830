"""The pages of the checkout as input of Sphinx: collected in one folder, with a navigation and the links of a site.

The navigation has the links of ``docs/README.md`` and ``docs/adr/README.md`` in their order. Sphinx warns about a page
that neither links to.
"""

from __future__ import annotations

import os.path
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from documentation import reference

CHECKOUT = Path(__file__).parents[2]
#: Pages of the checkout, by their paths in it, that have another place on the site.
_MOVED = {
    "docs/README.md": "index.md",
    "docs/adr/README.md": "adr/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
_ABOUT = ("changelog.md", "contributing.md", "reporting.md")
#: Folders below ``docs`` with images and downloads of pages.
_WITH_PAGES = ("images", "examples")
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<mark>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def stage(folder: Path, *, source_url: str | None = None) -> None:
    """Writes all pages of the site, generated ones included, into ``folder``."""
    places = page_places()
    for page, place in places.items():
        text = (CHECKOUT / page).read_text(encoding="utf-8")
        _write(folder / place, rewrite_links(text, page, places, source_url))
    for name in _WITH_PAGES:
        shutil.copytree(CHECKOUT / "docs" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for generated in reference.PAGES:
        _write(folder / generated.place, generated.render())
    front = rewrite_links(_introduction(), "README.md", places, source_url)
    index = (folder / "index.md").read_text(encoding="utf-8")
    _write(folder / "index.md", front + "\n" + _without_introduction(index) + _navigation())
    decisions = folder / "adr" / "index.md"
    listed = _linked_pages("docs/adr/README.md", (CHECKOUT / "docs/adr/README.md").read_text(encoding="utf-8"))
    _write(decisions, decisions.read_text(encoding="utf-8") + _toctree(None, listed, below="adr"))


def page_places() -> dict[str, str]:
    """The pages of the checkout by path, with their places on the site."""
    places = dict(_MOVED)
    for path in sorted((CHECKOUT / "docs").rglob("*.md")):
        page = path.relative_to(CHECKOUT).as_posix()
        places.setdefault(page, page.removeprefix("docs/"))
    return places


def rewrite_links(text: str, page: str, places: dict[str, str], source_url: str | None) -> str:
    """``text`` of a page with the links of the site; code blocks are not changed.

    A link to a file outside the site leads to ``source_url``, or is replaced by its text where that is None.
    """

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        name, mark, anchor = target.partition("#")
        path = os.path.normpath(PurePosixPath(page).parent / name)
        here = PurePosixPath(places.get(page, "index.md")).parent
        if path in places:
            return f"[{found['text']}]({os.path.relpath(places[path], here)}{mark}{anchor})"
        if path.startswith(tuple(f"docs/{name}/" for name in _WITH_PAGES)):
            return f"{found['mark']}[{found['text']}]({os.path.relpath(path.removeprefix('docs/'), here)})"
        return found["text"] if source_url is None else f"[{found['text']}]({source_url}/{path})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def _linked_pages(page: str, text: str) -> list[str]:
    """The places on the site of the pages that a page links to, in order."""
    places = page_places()
    found = [os.path.normpath(PurePosixPath(page).parent / match["target"]) for match in _LINK.finditer(text)]
    return list(dict.fromkeys(places[path] for path in found if path in places))


def sections() -> Iterator[tuple[str, list[str]]]:
    """The sections of the navigation: title, and the places of its pages."""
    text = (CHECKOUT / "docs" / "README.md").read_text(encoding="utf-8")
    for part in text.split("\n## ")[1:]:
        title = part.partition("\n")[0].partition(":")[0]
        yield title, _linked_pages("docs/README.md", part)
    yield "Generated from the code", [page.place for page in reference.PAGES]
    yield "About", list(_ABOUT)


def _navigation() -> str:
    return "".join(_toctree(title, places) for title, places in sections())


def _toctree(caption: str | None, places: list[str], below: str = "") -> str:
    entries = [os.path.relpath(place, below or ".").removesuffix(".md") for place in places]
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *entries, "```", ""])


def _introduction() -> str:
    """The start of the README, up to the picture of the parts."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    return text[: text.index("## The parts")]


def _without_introduction(text: str) -> str:
    """A page from its first section on."""
    return text[text.index("## ") :]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
