"""``Link`` headers (RFC 8288 section 3) and the next page that they name.

Follows the distribution specification, "Listing Tags". Malformed headers are read where their meaning is clear; one
that cannot be read is an error, because the listing would otherwise end early without notice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from registry_sync.errors import PaginationError, RedirectRefused
from registry_sync.oci.http.origins import Target

MAX_HEADER_BYTES = 16 * 1024
_SEPARATORS = re.compile(r"[\s,]*")
#: A reference in brackets, whose closing one may be missing, or a path or URL without brackets.
_REFERENCE = re.compile(r"<(?P<bracketed>[^>]*)>|<(?P<cut>[^\s;,<>]*)|(?P<bare>[^\s;,<>\"']*[/?][^\s;,<>\"']*)")
#: Values in double or single quotes, with an unclosed quote, or without quotes.
_PARAMETER = re.compile(
    r"\s*;\s*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)?"
    r"(?:\s*=\s*(?:\"(?P<double>(?:[^\"\\]|\\.)*)\"|'(?P<single>[^']*)'|[\"']?(?P<token>[^\s;,\"']+)[\"']?))?"
)
#: The relations in a value of ``rel``, whatever quotes surround them.
_RELATION = re.compile(r"[a-z0-9][a-z0-9.:/_-]*")
#: Relations of pages of a listing that are not the next one.
_OTHER_PAGES = frozenset({"prev", "previous", "first", "last", "self", "start", "current", "up", "collection"})
#: Of these, the pages that the last page of a listing may link to.
_PAGES_BEFORE = frozenset({"prev", "previous"})
_REFERRERS = re.compile(r".*(/referrers/[^/]+)")


@dataclass(frozen=True)
class WebLink:
    """A reference as written, and its relations in lower case, empty without any.

    The first ``rel`` counts (RFC 8288 section 3.3); from others only ``next`` is read, so that no page is lost.
    """

    reference: str
    relations: frozenset[str]


@dataclass(frozen=True)
class WebLinks:
    """The links of a header in their order; ``is_complete`` False when something in it is no link."""

    links: tuple[WebLink, ...]
    is_complete: bool = True


def parse_links(header: str) -> WebLinks:
    """Every link of a header, in which repeated headers are joined by commas; other text is skipped."""
    links: list[WebLink] = []
    is_complete = len(header) <= MAX_HEADER_BYTES
    header = header[:MAX_HEADER_BYTES]
    position = 0
    while (position := _end_of(_SEPARATORS, header, position)) < len(header):
        reference = _REFERENCE.match(header, position)
        if reference is None:
            is_complete = False
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
            is_complete = False
            position = _after_comma(header, position)
    return WebLinks(tuple(links), is_complete)


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _after_comma(text: str, position: int) -> int:
    comma = text.find(",", position)
    return len(text) if comma < 0 else comma + 1


def next_page(header: str | None, requested: Target) -> Target | None:
    """The page after ``requested``, the target that sent this header; None without a link to a next page.

    A link without a relation is one to the next page when it continues this listing. Only the query of a link is used,
    on the requested path: some registries behind a proxy send their inner path, and no link may lead to another host.
    Raises :class:`PaginationError` for a header that cannot be read, and :class:`RedirectRefused`.
    """
    if header is None or not header.strip():
        return None
    host = requested.origin.netloc
    found = parse_links(header)
    meant = [link for link in found.links if "next" in link.relations]
    unclear = [link for link in found.links if not link.relations & {"next", *_OTHER_PAGES}]
    if not meant:
        meant = [link for link in unclear if not link.relations and _continues(link, requested)]
    if not meant:
        # An unknown relation is ignored, unless its link leads to a page of this listing.
        is_clear = found.is_complete and all(link.relations and not _continues(link, requested) for link in unclear)
        if is_clear and not any(_leads_on(link, requested) for link in found.links):
            return None
        raise PaginationError(
            f"{host} sends a Link header that does not say whether a next page follows: {_shown(header)}",
            host=host,
            url=requested.url,
        )
    pages = dict.fromkeys(_page(link, requested) for link in meant)
    if len(pages) > 1:
        raise PaginationError(f"{host} names two next pages: {_shown(header)}", host=host, url=requested.url)
    return next(iter(pages))


def _page(link: WebLink, requested: Target) -> Target:
    host = requested.origin.netloc
    try:
        target = Target.parse(link.reference, relative_to=requested)
    except ValueError as problem:
        raise RedirectRefused(f"{host} names a next page that cannot be read: {problem}", host=host) from None
    path, _, query = target.path.partition("?")
    if target.origin != requested.origin:
        raise RedirectRefused(f"{host} names a next page at {target.origin.netloc}", host=host, url=target.url)
    requested_path = requested.path.partition("?")[0]
    if path != requested_path and not (query and path.endswith(_operation(requested_path))):
        raise RedirectRefused(f"{host} names a next page of something else", host=host, url=target.url)
    return Target(requested.origin, f"{requested_path}?{query}" if query else requested_path)


def _operation(path: str) -> str:
    """The end of a path that identifies a listing, whatever repository or proxy prefix precedes it."""
    referrers = _REFERRERS.fullmatch(path)
    return referrers[1] if referrers else "/tags/list"


def _continues(link: WebLink, requested: Target) -> bool:
    """Whether a link leads to another page of the requested listing."""
    try:
        page = _page(link, requested)
    except RedirectRefused:
        return False
    return "?" in page.path and page != requested


def _leads_on(link: WebLink, requested: Target) -> bool:
    """Whether a link with another relation continues after some tag or referrer, which a first page never does."""
    if link.relations & _PAGES_BEFORE or not _continues(link, requested):
        return False
    after = _after(_page(link, requested))
    return bool(after) and after != _after(requested)


def _after(target: Target) -> list[str]:
    """The ``last`` that the page of ``target`` continues from; empty for a first page."""
    return parse_qs(target.path.partition("?")[2]).get("last", [])


def _shown(header: str) -> str:
    """The paths and relations of a header, for messages, without queries, which may be secret."""
    kept = "".join(character if character.isprintable() else " " for character in re.sub(r"\?[^>;,\s]*", "?…", header))
    return repr(kept[:120])
