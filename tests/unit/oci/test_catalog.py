"""The list of a registry's repositories is all of them, or an error that says what to do."""

from __future__ import annotations

import pytest

from registry_sync.errors import (
    LimitExceeded,
    NotFound,
    PaginationError,
    ProtocolError,
    RegistrySyncError,
    RepositoryUnavailable,
)
from registry_sync.oci import catalog
from support.hostile_registry import Raw, errors_reply, json_reply, paged


def page(names: object, following: str | None = None) -> Raw:
    headers = [("Link", f'<{following}>; rel="next"')] if following else []
    return json_reply({"repositories": names}, headers=headers)


@pytest.mark.parametrize(("size", "links"), [(10, True), (100, True), (100, False)])
def test_every_page_is_read_to_the_end(registry, client_of, size: int, links: bool) -> None:
    names = [f"team/app{number:03}" for number in range(230)]
    registry.on("GET", catalog.PATH, paged(catalog.PATH, names, size, page, links=links))
    assert client_of(registry).list_repositories() == tuple(names)


def test_a_registry_that_ignores_pages_gives_all_at_once(registry, client_of) -> None:
    names = [f"a/b{number}" for number in range(100)]
    registry.on("GET", catalog.PATH, page([*names, "Not A Name", 3]))
    assert client_of(registry).list_repositories() == tuple(sorted(names))


def test_a_page_size_that_is_refused_is_left_out(registry, client_of) -> None:
    registry.on(
        "GET",
        catalog.PATH,
        lambda request: errors_reply(400, "PAGINATION_NUMBER_INVALID") if request.query else page(["a/b"]),
    )
    assert client_of(registry).list_repositories() == ("a/b",)


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (403, RepositoryUnavailable)])
def test_where_there_is_none_the_error_says_what_to_do(
    registry, client_of, status: int, error: type[RegistrySyncError]
) -> None:
    registry.on("GET", catalog.PATH, errors_reply(status, "DENIED"))
    with pytest.raises(error, match=r"does not list its repositories.*name those that are wanted"):
        client_of(registry).list_repositories()


def test_a_list_that_leads_nowhere_is_an_error(registry, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.on("GET", catalog.PATH, page(["a/b"], f"{catalog.PATH}?n=1000&last=a"))
    with pytest.raises(PaginationError, match="links to a page again"):
        client_of(registry).list_repositories()
    for wrong in ({"repositories": {}}, {"name": "x"}):
        registry.on("GET", catalog.PATH, json_reply(wrong))
        with pytest.raises(ProtocolError, match="repositories"):
            client_of(registry).list_repositories()
    monkeypatch.setattr(catalog, "MAX_REPOSITORIES", 2)
    registry.on("GET", catalog.PATH, page(["a/b", "a/c", "a/d"]))
    with pytest.raises(LimitExceeded, match="more than 2 repositories"):
        client_of(registry).list_repositories()
