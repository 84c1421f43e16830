"""Listings: whole and in order, over as many pages as there are, or an error that says which."""

from __future__ import annotations

import pytest

from registry_sync.domain.references import RepositoryName, TagName
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import HELD, MemoryResponse, document, refusal, tag_page
from support.registry_sources import Source, error_of
from support.shapes import every_kind


def tagged(count: int) -> RepositoryContent:
    """So many tags on one image."""
    build = ContentBuilder(seed=1)
    image = build.image([build.blob(10)])
    for number in range(count):
        build.tag(f"v{number:02}", image)
    return build.content()


def test_all_tags_are_listed_in_order_and_counted_as_one_page(source: Source, name: RepositoryName) -> None:
    content = every_kind()
    push(source.registry, name, content)
    reader = source.reader()
    listing = reader.list_tags(name)
    assert (listing.tags, listing.skipped, listing.page_count) == (tuple(sorted(content.tags)), (), 1)
    assert all(isinstance(tag, TagName) for tag in listing.tags)
    assert reader.usage.counts().tag_page_count == 1


def test_a_deleted_tag_and_one_that_moved_are_listed_as_they_are(source: Source, name: RepositoryName) -> None:
    push(source.registry, name, tagged(3))
    source.registry.delete_tag(name, "v01")
    assert source.reader().list_tags(name).tags == ("v00", "v02")


def test_a_repository_that_is_not_there_is_named(source: Source, name: RepositoryName) -> None:
    push(source.registry, name, tagged(1))
    assert error_of(lambda: source.reader().list_tags(RepositoryName("no/such"))) == {
        "type": "NotFound",
        "kind": "repository",
        "status": 404,
        "codes": ("NAME_UNKNOWN",),
        "repository": "no/such",
        "is_temporary": False,
    }


@pytest.mark.parametrize(("count", "page_count"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_pages_are_followed_to_the_end(scripted: Source, name: RepositoryName, count: int, page_count: int) -> None:
    push(scripted.registry, name, tagged(count))
    reader = scripted.reader()
    listing = reader.list_tags(name)
    assert (len(listing.tags), listing.page_count) == (count, page_count)
    assert reader.usage.counts().tag_page_count == page_count
    assert [request.query.get("last") for request in scripted.registry.log().select("GET", "tags")] == [
        None,
        *([f"v{4 * number - 1:02}"] for number in range(1, page_count)),
    ]


def test_what_comes_and_goes_between_two_pages_is_seen_as_far_as_it_lies_ahead(
    scripted: Source, name: RepositoryName
) -> None:
    push(scripted.registry, name, tagged(9))

    def change() -> MemoryResponse:
        """The second page, of a repository that has changed since the first."""
        for gone in ("v00", "v03", "v07"):
            scripted.registry.delete_tag(name, gone)
        scripted.registry.on("GET", "tags", "", HELD)
        return tag_page(["v04", "v05", "v06", "v08"])

    scripted.registry.on("GET", "tags", "", HELD, change)
    listing = scripted.reader().list_tags(name)
    assert listing.tags == ("v00", "v01", "v02", "v03", "v04", "v05", "v06", "v08")


def test_a_page_that_vanishes_begins_the_listing_again_once(scripted: Source, name: RepositoryName) -> None:
    push(scripted.registry, name, tagged(6))
    scripted.registry.on("GET", "tags", "", HELD, refusal(404), HELD)
    reader = scripted.reader()
    assert len(reader.list_tags(name).tags) == 6
    assert reader.usage.counts().tag_page_count == 3, "the first one twice"
    scripted.registry.on("GET", "tags", "", HELD, refusal(404), HELD, refusal(404))
    assert error_of(lambda: scripted.reader().list_tags(name)) == {
        "type": "PaginationError",
        "repository": name,
        "is_temporary": False,
    }


@pytest.mark.parametrize(
    ("page", "error", "status"),
    [
        (refusal(403, "DENIED"), "RepositoryUnavailable", 403),
        (refusal(400, "PAGINATION_NUMBER_INVALID"), "PaginationError", None),
        (tag_page(["v00", "v01"]), "PaginationError", None),
        (document(b'{"name": "app"}', "application/json"), "ProtocolError", 200),
    ],
    ids=["refused", "not given", "repeated", "no tags"],
)
def test_a_listing_that_cannot_be_read_to_its_end_is_an_error(
    scripted: Source, name: RepositoryName, page: MemoryResponse, error: str, status: int | None
) -> None:
    push(scripted.registry, name, tagged(6))
    scripted.registry.on("GET", "tags", "", HELD, page)
    found = error_of(lambda: scripted.reader().list_tags(name))
    assert (found["type"], found.get("status"), found["is_temporary"]) == (error, status, False)


def test_names_that_are_no_tags_are_excluded_and_reported(scripted: Source, name: RepositoryName) -> None:
    scripted.registry.on("GET", "tags", "", tag_page(["v1", "not a tag", ".dot", None, "v1", 7]))
    listing = scripted.reader().list_tags(name)
    assert (listing.tags, listing.skipped) == (("v1",), ("not a tag", ".dot", "None", "7"))


def test_an_empty_listing_has_no_tags(scripted: Source, name: RepositoryName) -> None:
    scripted.registry.on("GET", "tags", "", tag_page([]))
    assert scripted.reader().list_tags(name).tags == ()
