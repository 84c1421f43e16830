"""A listing is every tag there is, or an error."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from registry_sync.errors import (
    LimitExceeded,
    NotFound,
    PaginationError,
    ProtocolError,
    RedirectRefused,
    RepositoryUnavailable,
)
from registry_sync.oci import tags as tags_module
from support.hostile_registry import Raw, Request, errors_reply, json_reply, paged, reply
from support.oci import REPOSITORY, FakeTime

TAGS = f"/v2/{REPOSITORY}/tags/list"


def page(names: object, following: str | None = None) -> Raw:
    headers = [("Link", f'<{following}>; rel="next"')] if following else []
    return json_reply({"name": str(REPOSITORY), "tags": names}, headers=headers)


def test_a7_01_pages_are_followed_by_their_links_to_the_end(registry, client_of) -> None:
    names = [f"v{number:04}" for number in range(95)]
    registry.on("GET", TAGS, paged(TAGS, names, 10, page))
    client = client_of(registry)
    before = datetime.now(timezone.utc)
    listing = client.list_tags(REPOSITORY)
    assert listing.tags == tuple(names)
    assert listing.page_count == client.usage.counts().tag_page_count == 10
    assert before <= listing.listed_at <= datetime.now(timezone.utc)
    assert registry.requests[0].query == "n=1000"


def test_a7_02_a_link_to_another_host_fails_the_listing(registry, other_host, client_of) -> None:
    registry.on("GET", TAGS, page(["a"], f"{other_host.base}{TAGS}?last=a"))
    with pytest.raises(RedirectRefused):
        client_of(registry).list_tags(REPOSITORY)
    assert other_host.requests == []


def test_a7_03_a_rewritten_link_that_does_not_work_is_an_error_of_pagination(registry, client_of) -> None:
    registry.on("GET", TAGS, page(["a"], f"/repository/x{TAGS}?last=a"), errors_reply(400, "UNKNOWN"))
    with pytest.raises(PaginationError, match="linked to"):
        client_of(registry).list_tags(REPOSITORY)


@pytest.mark.parametrize("size", [50, 100, 1000])
def test_a7_04_a_full_page_without_link_is_continued_by_its_last_tag(registry, client_of, size: int) -> None:
    names = [f"v{number:05}" for number in range(2 * size + 7)]
    registry.on("GET", TAGS, paged(TAGS, names, size, page, links=False))
    assert client_of(registry).list_tags(REPOSITORY).tags == tuple(names)


def test_a7_04_a_full_page_that_ends_with_no_tag_is_continued_by_the_last_that_is_one(registry, client_of) -> None:
    names = [f"v{number:05}" for number in range(98)]
    registry.on("GET", TAGS, page([*names, None, "sha256:" + "0" * 64]), page(["w"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == (*names, "w")
    assert registry.requests[1].query == "n=100&last=v00097"


def test_a7_04_a_full_page_without_any_tag_is_an_error(registry, client_of) -> None:
    """What follows it cannot be requested, and may be all the tags."""
    registry.on("GET", TAGS, page([None] * 100))
    with pytest.raises(PaginationError, match="no tag to continue from"):
        client_of(registry).list_tags(REPOSITORY)


def test_a7_04_404_after_a_full_page_is_the_end_where_the_repeated_listing_meets_it_too(registry, client_of) -> None:
    names = [f"v{number:05}" for number in range(100)]
    registry.on("GET", TAGS, page(names), reply(404))
    registry.on("GET", TAGS, lambda request: reply(404) if "last=" in request.query else page(names))
    assert client_of(registry).list_tags(REPOSITORY).tags == tuple(names)
    assert [request.query for request in registry.requests] == ["n=1000", "n=100&last=v00099"] * 2


def test_a7_04_404_after_a_full_page_whose_last_tag_went_meanwhile_is_no_end(registry, client_of) -> None:
    names = [f"v{number:05}" for number in range(110)]
    remaining = [name for name in names if name != "v00099"]
    registry.on("GET", TAGS, page(names[:100]), reply(404), page(remaining[:100]), page(remaining[100:]))
    assert client_of(registry).list_tags(REPOSITORY).tags == tuple(remaining)


def test_a7_04_a_registry_that_ignores_last_is_done_after_one_probe(registry, client_of) -> None:
    names = [f"v{number:05}" for number in range(100)]
    registry.on("GET", TAGS, page(names))
    assert client_of(registry).list_tags(REPOSITORY).tags == tuple(names)
    assert len(registry.requests) == 2


def test_a7_04_a_page_that_is_not_full_is_not_continued(registry, client_of) -> None:
    registry.on("GET", TAGS, page(["a", "b"]))
    client_of(registry).list_tags(REPOSITORY)
    assert len(registry.requests) == 1


def test_a7_05_a_link_to_a_page_listed_before_is_an_error(registry, client_of) -> None:
    registry.on("GET", TAGS, page(["a"], f"{TAGS}?n=1000"))
    with pytest.raises(PaginationError, match="listed before"):
        client_of(registry).list_tags(REPOSITORY)


def test_a7_05_pages_that_bring_nothing_new_are_an_error(registry, client_of) -> None:
    numbers = iter(range(100))
    registry.on("GET", TAGS, lambda _request: page(["a"], f"{TAGS}?last={next(numbers)}"))
    with pytest.raises(PaginationError, match="repeats"):
        client_of(registry).list_tags(REPOSITORY)


def test_a7_05_three_empty_pages_are_skipped_and_a_fourth_is_an_error(registry, client_of) -> None:
    empty = [page([], f"{TAGS}?last={number}") for number in range(4)]
    registry.on("GET", TAGS, page(["a"], f"{TAGS}?last=a"), *empty[:3], page(["b"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a", "b")
    registry.on("GET", TAGS, page(["a"], f"{TAGS}?last=a"), *empty[:3], page([]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)
    numbers = iter(range(100))
    registry.on("GET", TAGS, lambda _request: page([], f"{TAGS}?last={next(numbers)}"))
    with pytest.raises(PaginationError, match="without tags"):
        client_of(registry).list_tags(REPOSITORY)


def test_a7_05_pages_and_tags_are_bounded(registry, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1000))

    def endless(_request: Request) -> Raw:
        number = next(numbers)
        return page([f"a{number}"], f"{TAGS}?last={number}")

    registry.on("GET", TAGS, endless)
    monkeypatch.setattr(tags_module, "MAX_PAGES", 7)
    with pytest.raises(LimitExceeded, match="pages"):
        client_of(registry).list_tags(REPOSITORY)
    assert len(registry.requests) == 7
    monkeypatch.setattr(tags_module, "MAX_PAGES", 100)
    monkeypatch.setattr(tags_module, "MAX_TAGS", 9)
    with pytest.raises(LimitExceeded, match="tags"):
        client_of(registry).list_tags(REPOSITORY)
    assert len(registry.requests) == 7 + 10
    registry.on("GET", TAGS, page([f"a{number}" for number in range(9)]))
    assert len(client_of(registry).list_tags(REPOSITORY).tags) == 9
    registry.on("GET", TAGS, page([f"a{number}" for number in range(10)]))
    with pytest.raises(LimitExceeded, match="tags"):
        client_of(registry).list_tags(REPOSITORY)


def test_a7_05_a_page_larger_than_16_mib_is_not_read(registry, client_of) -> None:
    registry.on("GET", TAGS, reply(200, b"{}", length=17 * 1024 * 1024, cut=True))
    with pytest.raises(LimitExceeded):
        client_of(registry).list_tags(REPOSITORY)


def test_a7_05_a_listing_that_takes_longer_than_an_hour_is_given_up(registry, client_of, fake_time: FakeTime) -> None:
    numbers = iter(range(1000))

    def slow(_request: Request) -> Raw:
        fake_time.elapsed += 600
        number = next(numbers)
        return page([f"a{number}"], f"{TAGS}?last={number}")

    registry.on("GET", TAGS, slow)
    with pytest.raises(LimitExceeded, match="hour"):
        client_of(registry).list_tags(REPOSITORY)
    assert len(registry.requests) == 7


@pytest.mark.parametrize(
    "refusal", [reply(400), reply(405), errors_reply(404, "UNSUPPORTED"), errors_reply(400, "UNSUPPORTED")]
)
def test_a7_06_a_page_size_that_is_refused_is_omitted(registry, client_of, refusal: Raw) -> None:
    registry.on("GET", TAGS, refusal, page(["a"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)
    assert [request.query for request in registry.requests] == ["n=1000", ""]


def test_a7_06_a_list_sent_as_plain_text_is_a_list(registry, client_of) -> None:
    registry.on("GET", TAGS, reply(200, '{"tags": ["a"]}', content_type="text/plain"))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)


def test_a7_07_unknown_keys_are_ignored(registry, client_of) -> None:
    registry.on("GET", TAGS, json_reply({"tags": ["a"], "child": ["x"], "manifest": {"sha256:x": {"tag": ["b"]}}}))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)


@pytest.mark.parametrize("tells_its_length", [True, False])
def test_a7_07_a_key_of_100_mb_is_not_read(registry, client_of, tells_its_length: bool) -> None:
    pieces = [b'{"tags": ["a"], "manifest": {"x": "', *[b"y" * 1_000_000] * 100, b'"}}']
    length = f"Content-Length: {sum(map(len, pieces))}\r\n".encode() if tells_its_length else b""
    registry.on("GET", TAGS, Raw((b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", *pieces)))
    with pytest.raises(LimitExceeded, match="tag list"):
        client_of(registry).list_tags(REPOSITORY)


def test_a6_19_a_listing_says_when_it_started_whatever_changes_while_it_is_made(registry, client_of) -> None:
    asked_at: list[datetime] = []

    def first(_request: Request) -> Raw:
        asked_at.append(datetime.now(timezone.utc))
        return page(["a"], f"{TAGS}?last=a")

    registry.on("GET", TAGS, first, page(["pushed-meanwhile"]))
    listing = client_of(registry).list_tags(REPOSITORY)
    assert listing.listed_at <= asked_at[0]
    assert listing.tags == ("a", "pushed-meanwhile")


def test_a7_08_an_opaque_continuation_is_carried_untouched(registry, client_of) -> None:
    registry.on("GET", TAGS, page(["a"], f"{TAGS}?next_page=gAAA%3D%3D%2B&n=50"), page(["b"]))
    client_of(registry).list_tags(REPOSITORY)
    assert registry.requests[1].query == "next_page=gAAA%3D%3D%2B&n=50"


def test_a7_09_tags_come_sorted_and_once_in_whatever_order_they_are_sent(registry, client_of) -> None:
    registry.on("GET", TAGS, page(["b", "a", "B", "b"], f"{TAGS}?last=b"), page(["a", "0"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("0", "B", "a", "b")


@pytest.mark.parametrize("document", [{"tags": None}, {"name": "other", "tags": []}])
def test_a7_09_no_tags_are_no_tags(registry, client_of, document: dict[str, object]) -> None:
    registry.on("GET", TAGS, json_reply(document))
    assert client_of(registry).list_tags(REPOSITORY).tags == ()


def test_a7_10_a_page_that_disappears_starts_the_listing_again(registry, client_of) -> None:
    first = page(["a", "b"], f"{TAGS}?last=b")
    registry.on("GET", TAGS, first, errors_reply(404, "NAME_UNKNOWN"), page(["a"], f"{TAGS}?last=a"), page(["c"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a", "c")


def test_a7_10_a_page_that_disappears_twice_is_no_missing_repository(registry, client_of) -> None:
    first = page(["a"], f"{TAGS}?last=a")
    registry.on("GET", TAGS, first, reply(404), first, reply(404))
    with pytest.raises(PaginationError, match="disappeared twice"):
        client_of(registry).list_tags(REPOSITORY)


@pytest.mark.parametrize("failure", [reply(500), reply(403), reply(429, headers=[("Retry-After", "9999")])])
def test_a7_11_an_error_on_a_later_page_fails_the_whole_listing(registry, client_of, failure: Raw) -> None:
    registry.on("GET", TAGS, page(["a"], f"{TAGS}?last=a"), failure)
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        client_of(registry).list_tags(REPOSITORY)


def test_a1_03_names_that_are_no_tags_are_skipped_and_shown_printable(registry, client_of) -> None:
    odd = [None, "../../etc", 7, {"a": 1}, "x\r\nINFO forged", "sha256:" + "0" * 64, "y" * 10_000, "good", ""]
    registry.on("GET", TAGS, page(odd))
    listing = client_of(registry).list_tags(REPOSITORY)
    assert listing.tags == ("good",)
    assert len(listing.skipped) == len(odd) - 1
    assert all(name.isprintable() and len(name) <= 128 for name in listing.skipped)


def test_a1_03_of_names_that_are_no_tags_a_bounded_number_is_kept(
    registry, client_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags_module, "MAX_SKIPPED", 3)
    registry.on("GET", TAGS, page(["good", *[f"bad/{number}" for number in range(9)]]))
    listing = client_of(registry).list_tags(REPOSITORY)
    assert (listing.tags, listing.skipped) == (("good",), ("bad/0", "bad/1", "bad/2"))


@pytest.mark.parametrize("link", [f"<{TAGS}?last=b>; rel='next'", f"<{TAGS}?last=b>", f'<{TAGS}?last=b>; rel="next'])
def test_a7_02_every_page_is_read_however_its_link_is_written(registry, client_of, link: str) -> None:
    registry.on("GET", TAGS, json_reply({"tags": ["a", "b"]}, headers=[("Link", link)]), page(["c"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a", "b", "c")


def test_a7_02_of_several_headers_the_one_that_names_the_next_page_is_found(registry, client_of) -> None:
    links = [("Link", "unreadable"), ("Link", f"<{TAGS}?n=2>; rel=first"), ("Link", f"<{TAGS}?last=b>; rel=next")]
    registry.on("GET", TAGS, json_reply({"tags": ["a", "b"]}, headers=links), page(["c"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a", "b", "c")


def test_a7_03_a_page_of_another_repository_is_read_of_the_one_that_was_requested(registry, client_of) -> None:
    registry.on("GET", TAGS, page(["a", "b"], "/v2/wrong/tags/list?last=b"), page(["c"]))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a", "b", "c")
    assert registry.requests[1].target == f"{TAGS}?last=b"


@pytest.mark.parametrize("is_later", [False, True])
def test_a7_11_a_link_that_cannot_be_read_fails_the_listing(registry, client_of, is_later: bool) -> None:
    unreadable = json_reply({"tags": ["c"]}, headers=[("Link", "unreadable")])
    registry.on("GET", TAGS, *([page(["a", "b"], f"{TAGS}?last=b")] if is_later else []), unreadable)
    with pytest.raises(PaginationError, match="sends a Link"):
        client_of(registry).list_tags(REPOSITORY)


@pytest.mark.parametrize("document", ["{}", '{"name": "library/demo"}', '{"tags": ["c"], "tags": []}'])
@pytest.mark.parametrize("is_later", [False, True])
def test_a7_11_a_page_that_does_not_say_its_tags_is_an_error_and_no_end(
    registry, client_of, document: str, is_later: bool
) -> None:
    registry.on("GET", TAGS, *([page(["a", "b"], f"{TAGS}?last=b")] if is_later else []), reply(200, document))
    with pytest.raises(ProtocolError):
        client_of(registry).list_tags(REPOSITORY)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"tags": {}}', b'{"tags": "a"}', b"\xff\xfe{\x00"])
def test_a9_02_what_is_no_tag_list_is_an_error(registry, client_of, body: bytes) -> None:
    registry.on("GET", "/v2/", reply(200, b"{}"))
    registry.on("GET", TAGS, reply(200, body))
    with pytest.raises(ProtocolError):
        client_of(registry).list_tags(REPOSITORY)


def test_a9_02_errors_under_status_200_are_an_error(registry, client_of) -> None:
    for reported in ({}, {"tags": None}, {"tags": ["a-part-of-them"]}):
        registry.on("GET", TAGS, json_reply({**reported, "errors": [{"code": "UNKNOWN"}]}))
        with pytest.raises(ProtocolError, match="200 with errors"):
            client_of(registry).list_tags(REPOSITORY)


def test_a9_02_a_later_page_that_is_no_tag_list_is_an_error_of_the_registry(registry, client_of) -> None:
    registry.on("GET", "/v2/", reply(200, b"{}"))
    registry.on("GET", TAGS, page(["a"], f"{TAGS}?last=a"), reply(200, b"<html>"))
    with pytest.raises(ProtocolError, match="a web page in place of its tag list"):
        client_of(registry).list_tags(REPOSITORY)


def test_a_nesting_bomb_is_no_tag_list(registry, client_of) -> None:
    registry.on("GET", TAGS, reply(200, b'{"tags":' + b"[" * 200_000))
    with pytest.raises(ProtocolError):
        client_of(registry).list_tags(REPOSITORY)


def test_a9_03_a_missing_repository_is_distinguished_from_a_refused_one(registry, client_of) -> None:
    registry.on("GET", TAGS, errors_reply(404, "NAME_UNKNOWN", "repository name not known to registry"))
    with pytest.raises(NotFound) as missing:
        client_of(registry).list_tags(REPOSITORY)
    assert missing.value.kind == "repository"
    registry.on("GET", TAGS, errors_reply(403, "DENIED"))
    with pytest.raises(RepositoryUnavailable, match="does not exist there, or it is private"):
        client_of(registry).list_tags(REPOSITORY)


def test_ten_thousand_tags_are_one_listing(registry, client_of) -> None:
    names = sorted(f"v{number}" for number in range(10_000))
    registry.on("GET", TAGS, paged(TAGS, names, 1000, page))
    assert client_of(registry).list_tags(REPOSITORY).tags == tuple(names)
    assert len(json.dumps(names)) > 50_000
