"""``Link`` headers (RFC 8288 section 3), and which next page they may mean.

Follows the distribution specification, "Listing Tags".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry_sync.errors import RedirectRefused
from registry_sync.oci.origins import Target

MAX_HEADER_BYTES = 16 * 1024
_REFERENCE = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(
    r"\s*;\s*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)?(?:\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<token>[^\s;,\"]+)))?"
)
#: Queries by which registries continue a listing.
_CONTINUATION = re.compile(r"(?:^|&)(?:last|n|next_page|pageToken)=")


@dataclass(frozen=True)
class Link:
    """A reference as written, and the relations it has, in lower case."""

    reference: str
    relations: frozenset[str]


def parse_links(header: str) -> tuple[Link, ...]:
    """The links in their order; reading stops at the first thing that is none."""
    links: list[Link] = []
    header = header[:MAX_HEADER_BYTES]
    position = 0
    while match := _REFERENCE.match(header, position):
        position = match.end()
        relations: frozenset[str] | None = None
        while parameter := _PARAMETER.match(header, position):
            position = parameter.end()
            if (parameter["name"] or "").lower() == "rel" and relations is None:
                value = parameter["token"] or re.sub(r"\\(.)", r"\1", parameter["quoted"] or "")
                relations = frozenset(value.lower().split())
        links.append(Link(match[1].strip(), relations or frozenset()))
    return tuple(links)


def next_page(header: str | None, asked: Target) -> Target | None:
    """The page after ``asked``, which was the target really used; None when no link says there is one.

    Only the query is taken from the link, on the path that was asked: some registries behind a proxy write their
    inner path, and no link may lead to another host or repository. Raises :class:`RedirectRefused`.
    """
    link = next((link for link in parse_links(header or "") if "next" in link.relations), None)
    if link is None:
        return None
    host = asked.origin.netloc
    try:
        target = Target.parse(link.reference, relative_to=asked)
    except ValueError as problem:
        raise RedirectRefused(f"{host} names a next page that cannot be read: {problem}", host=host) from None
    path, _, query = target.path.partition("?")
    if target.origin != asked.origin:
        raise RedirectRefused(f"{host} names a next page at {target.origin.netloc}", host=host, url=target.url)
    asked_path = asked.path.partition("?")[0]
    if path != asked_path and not _is_rewritten(path, asked_path, query):
        raise RedirectRefused(f"{host} names a next page of something else", host=host, url=target.url)
    return Target(asked.origin, f"{asked_path}?{query}" if query else asked_path)


def _is_rewritten(path: str, asked_path: str, query: str) -> bool:
    """Whether ``path`` is another proxy's name for ``asked_path``: it ends alike and continues a listing."""
    suffix = "/tags/list" if asked_path.endswith("/tags/list") else ""
    return bool(suffix and path.endswith(suffix) and _CONTINUATION.search(query) and _shares_name(path, asked_path))


def _shares_name(path: str, asked_path: str) -> bool:
    """Whether one repository path ends with the other, so that only a prefix was dropped or added."""
    name, asked = (text.rpartition("/v2/")[2] for text in (path, asked_path))
    return f"/{asked}".endswith(f"/{name}") or f"/{name}".endswith(f"/{asked}")
