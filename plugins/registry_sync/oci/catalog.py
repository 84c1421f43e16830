"""The repositories of a registry: ``/v2/_catalog``, page by page (Docker's registry API; the OCI's has none).

Many registries do not serve it, or only to administrators. That is an error which says what to do instead, and so is
anything by which a list may be partial: a list that was cut is never read as complete.
"""

from __future__ import annotations

from urllib.parse import quote

from registry_sync.domain.known_registries import known_registry
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import (
    AccessDenied,
    InvalidReference,
    LimitExceeded,
    NotFound,
    PaginationError,
    ProtocolError,
    RepositoryUnavailable,
)
from registry_sync.oci.http.error_mapping import RequestContext
from registry_sync.oci.http.link_headers import next_page
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.requester import Requester
from registry_sync.oci.http.responses import Response

PATH = "/v2/_catalog"
#: Most registries give no larger page.
PAGE_SIZE = 1000
MAX_PAGES = 1000
MAX_REPOSITORIES = 100_000
MAX_PAGE_BYTES = 16 * 1024 * 1024
#: A page of as many names may not be the last, whatever it links to.
_FULL_PAGES = frozenset({100, PAGE_SIZE})
_CONTEXT = RequestContext("catalog", subject="of repositories")


def list_repositories(requester: Requester) -> tuple[RepositoryName, ...]:
    """All repositories that the registry lists for these credentials, each once and sorted, without what is no name.

    Raises :class:`~registry_sync.errors.NotFound` where there is no catalog, :class:`AccessDenied` and
    :class:`RepositoryUnavailable` where it is refused, :class:`PaginationError` for pages that lead nowhere, and
    :class:`LimitExceeded`.
    """
    host = requester.target(PATH).origin.netloc
    try:
        return _all_pages(requester, host)
    except (NotFound, AccessDenied, RepositoryUnavailable) as problem:
        known = known_registry(host)
        who = f"{known.name} ({host})" if known.name else host
        raise problem.with_message(
            f"{who} does not list its repositories, or not for these credentials ({problem.status}): name those that "
            f"are wanted in the file of mirrors, or give a connection that may list them: {problem.message}"
        ) from None


def _all_pages(requester: Requester, host: str) -> tuple[RepositoryName, ...]:
    names: dict[str, None] = {}
    visited: set[str] = set()
    target: Target | None = requester.target(f"{PATH}?n={PAGE_SIZE}")
    while target is not None:
        if target.url in visited:
            raise PaginationError(f"the repositories of {host} cannot be listed: it links to a page again", host=host)
        if len(visited) >= MAX_PAGES:
            raise LimitExceeded(f"{host} has more than {MAX_PAGES:,} pages of repositories", limit="catalog pages")
        visited.add(target.url)
        try:
            found, following = requester.send("GET", target, _CONTEXT, {"Accept": "application/json"}, _read)
        except ProtocolError as problem:
            # Some registries refuse a page size above their own maximum.
            if len(visited) > 1 or problem.status not in (400, 405):
                raise
            found, following = requester.send(
                "GET", requester.target(PATH), _CONTEXT, {"Accept": "application/json"}, _read
            )
        before = len(names)
        names.update(dict.fromkeys(found))
        if len(names) > MAX_REPOSITORIES:
            raise LimitExceeded(f"{host} lists more than {MAX_REPOSITORIES:,} repositories", limit="repositories")
        target = following
        if target is None and len(found) in _FULL_PAGES and len(names) > before:  # it may be cut, without a link
            probe = requester.target(f"{PATH}?n={len(found)}&last={quote(found[-1], safe='')}")
            target = probe if probe.url not in visited else None
    return tuple(sorted(filter(None, map(_name, names))))


def _read(response: Response) -> tuple[list[str], Target | None]:
    following = next_page(response.header("Link"), response.target)
    document = response.read_json(MAX_PAGE_BYTES, "list of repositories")
    names = document.get("repositories")
    if names is not None and not isinstance(names, list):
        raise response.protocol_error(f"{response.target.origin.netloc} sends repositories that are not a list")
    if names is None and "repositories" not in document:
        raise response.protocol_error(
            f"{response.target.origin.netloc} sends a list of repositories without the field repositories"
        )
    return [name for name in names or () if isinstance(name, str)], following


def _name(text: str) -> RepositoryName | None:
    try:
        return RepositoryName(text)
    except InvalidReference:
        return None
