"""``Link`` headers (RFC 8288 section 3), and which next page they may mean.

Follows the distribution specification, "Listing Tags". What is meant is read where it is clear, however it is written;
a header that is there and says nothing that can be read is an error: its listing would end in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from registry_sync.errors import PaginationError, RedirectRefused
from registry_sync.oci.http.origins import Target

MAX_HEADER_BYTES = 16 * 1024
_SEPARATORS = re.compile(r"[\s,]*")
#: A reference in brackets, the second of which may lack, or a path or URL without any.
_REFERENCE = re.compile(r"<(?P<bracketed>[^>]*)>|<(?P<cut>[^\s;,<>]*)|(?P<bare>[^\s;,<>\"']*[/?][^\s;,<>\"']*)")
#: Values in double or in single quotes, with a quote that is not closed, or without quotes.
_PARAMETER = re.compile(
    r"\s*;\s*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)?"
    r"(?:\s*=\s*(?:\"(?P<double>(?:[^\"\\]|\\.)*)\"|'(?P<single>[^']*)'|[\"']?(?P<token>[^\s;,\"']+)[\"']?))?"
)
#: The relations in a value of ``rel``, whatever quotes are left around them.
_RELATION = re.compile(r"[a-z0-9][a-z0-9.:/_-]*")
#: Relations of pages of a listing that are not the next one.
_OTHER_PAGES = frozenset({"prev", "previous", "first", "last", "self", "start", "current", "up", "collection"})
#: Of these, the pages that a listing that ends here may well have behind it.
_PAGES_BEFORE = frozenset({"prev", "previous"})
_REFERRERS = re.compile(r".*(/referrers/[^/]+)")


@dataclass(frozen=True)
class WebLink:
    """A reference as written, and the relations it has, in lower case; empty when it says none.

    The first ``rel`` counts (RFC 8288 section 3.3); of others only ``next`` is read, or a page would be lost.
    """

    reference: str
    relations: frozenset[str]


@dataclass(frozen=True)
class WebLinks:
    """The links of a header in their order; ``is_whole`` False when something in it is no link."""

    links: tuple[WebLink, ...]
    is_whole: bool = True


def parse_links(header: str) -> WebLinks:
    """Every link of a header, in which repeated ones are joined by commas; what is no link is passed over."""
    links: list[WebLink] = []
    is_whole = len(header) <= MAX_HEADER_BYTES
    header = header[:MAX_HEADER_BYTES]
    position = 0
    while (position := _end_of(_SEPARATORS, header, position)) < len(header):
        reference = _REFERENCE.match(header, position)
        if reference is None:
            is_whole = False
            position = _after_comma(header, position)
            continue
        position = reference.end()
        relations: frozenset[str] | None = None
        while parameter := _PARAMETER.match(header, position):
            position = parameter.end()
            if (parameter["name"] or "").lower() == "rel":
                value = parameter["double"] or parameter["single"] or parameter["token"] or ""
                said = frozenset(_RELATION.findall(value.lower()))
                relations = said if relations is None else relations | (said & {"next"})
        links.append(WebLink(next(filter(None, reference.groups()), "").strip(), relations or frozenset()))
        if header[position:].lstrip()[:1] not in ("", ","):
            is_whole = False
            position = _after_comma(header, position)
    return WebLinks(tuple(links), is_whole)


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _after_comma(text: str, position: int) -> int:
    comma = text.find(",", position)
    return len(text) if comma < 0 else comma + 1


def next_page(header: str | None, asked: Target) -> Target | None:
    """The page after ``asked``, which was the target really used; None when there is no link, or none to a next page.

    A link without a relation is one to the next page when it continues this listing. Only the query is taken from a
    link, on the path that was asked: some registries behind a proxy write their inner path, and no link may lead to
    another host. Raises :class:`PaginationError` for what cannot be read, and :class:`RedirectRefused`.
    """
    if header is None or not header.strip():
        return None
    host = asked.origin.netloc
    found = parse_links(header)
    meant = [link for link in found.links if "next" in link.relations]
    unclear = [link for link in found.links if not link.relations & {"next", *_OTHER_PAGES}]
    if not meant:
        meant = [link for link in unclear if not link.relations and _continues(link, asked)]
    if not meant:
        # A relation that is known to nobody is none of this listing's pages, unless it leads to one.
        is_clear = found.is_whole and all(link.relations and not _continues(link, asked) for link in unclear)
        if is_clear and not any(_leads_on(link, asked) for link in found.links):
            return None
        raise PaginationError(
            f"{host} sends a Link of which it cannot be read whether a next page follows: {_shown(header)}",
            host=host,
            url=asked.url,
        )
    pages = dict.fromkeys(_page(link, asked) for link in meant)
    if len(pages) > 1:
        raise PaginationError(f"{host} names two next pages: {_shown(header)}", host=host, url=asked.url)
    return next(iter(pages))


def _page(link: WebLink, asked: Target) -> Target:
    host = asked.origin.netloc
    try:
        target = Target.parse(link.reference, relative_to=asked)
    except ValueError as problem:
        raise RedirectRefused(f"{host} names a next page that cannot be read: {problem}", host=host) from None
    path, _, query = target.path.partition("?")
    if target.origin != asked.origin:
        raise RedirectRefused(f"{host} names a next page at {target.origin.netloc}", host=host, url=target.url)
    asked_path = asked.path.partition("?")[0]
    if path != asked_path and not (query and path.endswith(_operation(asked_path))):
        raise RedirectRefused(f"{host} names a next page of something else", host=host, url=target.url)
    return Target(asked.origin, f"{asked_path}?{query}" if query else asked_path)


def _operation(path: str) -> str:
    """The end of a path by which a listing is known, whatever repository or proxy stands before it."""
    referrers = _REFERRERS.fullmatch(path)
    return referrers[1] if referrers else "/tags/list"


def _continues(link: WebLink, asked: Target) -> bool:
    """Whether a link leads to another page of the listing that was asked for."""
    try:
        page = _page(link, asked)
    except RedirectRefused:
        return False
    return "?" in page.path and page != asked


def _leads_on(link: WebLink, asked: Target) -> bool:
    """Whether a link that is called another page leads to what comes after a tag or referrer, as no first page does."""
    if link.relations & _PAGES_BEFORE or not _continues(link, asked):
        return False
    after = _after(_page(link, asked))
    return bool(after) and after != _after(asked)


def _after(target: Target) -> list[str]:
    """What the page of ``target`` comes after; empty for a first page."""
    return parse_qs(target.path.partition("?")[2]).get("last", [])


def _shown(header: str) -> str:
    """The paths and relations of a header, for people: a query may be a secret."""
    kept = "".join(character if character.isprintable() else " " for character in re.sub(r"\?[^>;,\s]*", "?…", header))
    return repr(kept[:120])
