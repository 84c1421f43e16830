"""Lists of the digests of all tags: in the list of tags, and by an API of its own; each pair counts alone."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.oci.client import RegistryReader
from registry_sync.oci.tag_digests import TagDigests
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import (
    HELD,
    NO_RESPONSE,
    MemoryRegistry,
    MemoryResponse,
    digest_page,
    document,
    refusal,
    tag_page,
)
from support.registry_sources import Source

pytestmark = pytest.mark.rule("A7.13")
TAGS = 250
MOST = 100


def tagged(count: int = TAGS) -> RepositoryContent:
    """So many tags on five images."""
    build = ContentBuilder(seed=5)
    images = [build.image([build.blob(10)]) for _ in range(5)]
    for number in range(count):
        build.tag(f"v{number:03}", images[number % 5])
    return build.content()


def filled(source: Source, name: RepositoryName, count: int = TAGS) -> tuple[MemoryRegistry, RepositoryContent]:
    """The registry, with a repository of so many tags, and with both kinds of list."""
    content = tagged(count)
    assert isinstance(source.registry, MemoryRegistry)
    source.registry.page_size = 1000
    source.registry.lists_digests = source.registry.has_digest_api = True
    push(source.registry, name, content)
    return source.registry, content


def asking(source: Source, **options: Any) -> RegistryReader:
    return source.reader(**{"digest_list": DigestList.QUAY} | options)


def read(reader: RegistryReader, name: RepositoryName, tags: Any, most: int = MOST) -> TagDigests:
    listed = reader.list_tag_digests(name, frozenset(map(TagName, tags)), most_requests=most)
    assert listed is not None
    return listed


def test_a_list_of_tags_may_have_the_digests_beside_them(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name)
    before = datetime.now(timezone.utc)
    listing = scripted.reader().list_tags(name)
    assert listing.digests == content.tags
    assert all(isinstance(digest, Digest) for digest in listing.digests.values())
    assert listing.digests_at is not None
    assert before <= listing.digests_at <= datetime.now(timezone.utc)
    assert registry.log().count() == 1, "for no more requests"
    registry.lists_digests = False
    assert scripted.reader().list_tags(name).digests == {}


def test_digests_of_all_pages_of_tags_are_collected(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name, 10)
    registry.page_size = 4
    assert scripted.reader().list_tags(name).digests == content.tags


def test_off_leaves_the_digests_in_a_list_of_tags_alone_and_asks_for_no_other(
    scripted: Source, name: RepositoryName
) -> None:
    registry, content = filled(scripted, name)
    reader = asking(scripted, digest_list=DigestList.OFF)
    assert reader.list_tags(name).digests == {}
    assert reader.list_tag_digests(name, frozenset(map(TagName, content.tags)), most_requests=MOST) is None
    assert registry.log().count(kind="digests") == 0


@pytest.mark.parametrize(
    "images",
    [
        {"sha256:" + "A" * 64: {"tag": ["v000"]}},
        {"sha256:" + "a" * 63: {"tag": ["v000"]}},
        {"sha256:" + "a" * 64: {"tag": ["v000"]}, "sha256:" + "b" * 64: {"tag": ["v000"]}},
        {"sha256:" + "a" * 64: {"tag": "v000"}, "sha256:" + "b" * 64: ["v000"], "sha256:" + "c" * 64: None},
        {"sha256:" + "a" * 64: {"tag": [None, 7, {"v000": 1}, "not a tag"]}},
        ["v000"],
        "v000",
    ],
    ids=["upper case", "short", "two digests", "no list", "no names", "a list", "a text"],
)
def test_what_a_list_of_tags_says_of_digests_otherwise_is_nothing(
    scripted: Source, name: RepositoryName, images: object
) -> None:
    page = tag_page(["v000"])
    said = page.data.decode()[:-1] + f', "manifest": {_json(images)}}}'
    scripted.registry.on("GET", "tags", "", document(said, "application/json"))  # type: ignore[union-attr]
    listing = scripted.reader().list_tags(name)
    assert (listing.tags, listing.digests) == (("v000",), {})


def _json(value: object) -> str:
    import json

    return json.dumps(value)


def test_an_api_gives_all_digests_page_by_page_and_counts_them_apart(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name)
    reader = asking(scripted)
    before = datetime.now(timezone.utc)
    listed = read(reader, name, content.tags)
    assert (listed.digests, listed.page_count, listed.problem, listed.is_lasting) == (content.tags, 3, None, False)
    assert before <= listed.as_of <= datetime.now(timezone.utc)
    counts = reader.usage.counts()
    assert (counts.digest_page_count, counts.tag_page_count, counts.head_count) == (3, 0, 0)
    assert registry.log().count("GET", "digests") == registry.log().count() == 3


def test_nothing_is_asked_where_it_takes_more_requests_than_it_may(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name)
    tags = frozenset(map(TagName, content.tags))
    assert asking(scripted).list_tag_digests(name, tags, most_requests=2) is None
    assert registry.log().count(kind="digests") == 0


def test_a_tag_that_nobody_asked_about_and_one_without_a_digest_are_omitted(
    scripted: Source, name: RepositoryName
) -> None:
    registry, content = filled(scripted, name, 3)
    other = Digest.of(b"other")
    entries = {"v000": content.tags["v000"], "v001": None, "v002": "sha256:" + "F" * 64, "gone": other, "": other}
    registry.on("GET", "digests", "", digest_page(entries))
    assert read(asking(scripted), name, content.tags).digests == {"v000": content.tags["v000"]}


def test_a_tag_with_two_digests_has_none(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name, 2)
    first = digest_page({"v000": content.tags["v000"], "v001": content.tags["v001"]}, has_more=True)
    registry.on("GET", "digests", "", first, digest_page({"v000": Digest.of(b"other"), "v002": Digest.of(b"2")}))
    listed = read(asking(scripted), name, [*content.tags, "v002"])
    assert listed.digests.keys() == {"v001", "v002"}


LASTING = [
    (refusal(401, "UNAUTHORIZED", has_challenge=True), "responds 401"),
    (refusal(403, "DENIED"), "responds 403"),
    (refusal(404), "responds 404"),
    (refusal(405, "UNSUPPORTED"), "responds 405"),
    (document("<html><title>Sign in</title></html>", "text/html"), ""),
    (document('{"tags": {"v000": "sha256:0"}}', "application/json"), "sends no list"),
]


@pytest.mark.parametrize(("page", "said"), LASTING, ids=["401", "403", "404", "405", "web page", "other shape"])
def test_a_list_that_is_not_given_to_this_reader_is_not_there_for_some_time(
    scripted: Source, name: RepositoryName, page: MemoryResponse, said: str
) -> None:
    registry, content = filled(scripted, name)
    registry.on("GET", "digests", "", page)
    reader = asking(scripted)
    listed = read(reader, name, content.tags)
    assert (listed.digests, listed.page_count, listed.is_lasting) == ({}, 0, True)
    assert said in (listed.problem or "")
    assert reader.usage.counts().digest_page_count == 1, "and not requested again"


TRANSIENT = [refusal(429, "TOOMANYREQUESTS", retry_after_seconds=1), refusal(503), NO_RESPONSE]


@pytest.mark.parametrize("page", TRANSIENT, ids=["429", "503", "broken"])
def test_a_passing_failure_is_met_by_one_more_request(
    scripted: Source, name: RepositoryName, page: MemoryResponse
) -> None:
    registry, content = filled(scripted, name)
    registry.on("GET", "digests", "", page, HELD)
    reader = asking(scripted)
    assert read(reader, name, content.tags).digests == content.tags
    registry.on("GET", "digests", "", page)
    listed = read(reader, name, content.tags)
    assert (listed.digests, listed.is_lasting) == ({}, False)
    assert listed.problem
    assert (reader.usage.counts().digest_page_count, reader.usage.counts().retry_count) == (4 + 2, 2)


def test_a_long_wait_is_not_waited_for(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name)
    registry.on("GET", "digests", "", refusal(429, retry_after_seconds=3600))
    reader = asking(scripted)
    listed = read(reader, name, content.tags)
    assert (listed.digests, listed.is_lasting, reader.usage.counts().digest_page_count) == ({}, False, 1)


@pytest.mark.parametrize("page", [*TRANSIENT, *(page for page, _ in LASTING)])
def test_pages_before_one_that_fails_count(scripted: Source, name: RepositoryName, page: MemoryResponse) -> None:
    registry, content = filled(scripted, name)
    registry.on("GET", "digests", "", HELD, HELD, page)
    listed = read(asking(scripted), name, content.tags)
    newest = sorted(content.tags, reverse=True)[:200]
    assert listed.digests == {tag: content.tags[tag] for tag in newest}
    assert (listed.page_count, listed.is_lasting) == (2, False)
    assert listed.problem


def test_pages_without_end_are_left(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name)
    known = {"v000": content.tags["v000"]}
    registry.on("GET", "digests", "", digest_page(known, has_more=True))
    listed = read(asking(scripted), name, content.tags)
    assert (listed.digests, listed.page_count) == (known, 2)
    assert "repeats a page" in (listed.problem or "")


def test_more_pages_than_it_may_take_are_left(scripted: Source, name: RepositoryName) -> None:
    registry, content = filled(scripted, name, 30)
    registry.digest_page_size = 10
    listed = read(asking(scripted), name, content.tags, most=2)
    assert (len(listed.digests), listed.page_count) == (20, 2)
    assert "more than 2 pages" in (listed.problem or "")
