"""Refusals, limits and outages: the same error for each, with what it says to programs, after as many attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import RegistrySyncError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryReader
from support.filling import push
from support.images import ContentBuilder
from support.memory_over_http import over_http
from support.memory_registry import (
    ANY,
    HELD,
    NO_RESPONSE,
    Held,
    MemoryRegistry,
    MemoryResponse,
    Scripted,
    document,
    referrers_page,
    refusal,
    tag_page,
)
from support.oci import MemoryWriter
from support.registry import PASSWORD, USERNAME
from support.registry_sources import Source, error_of
from support.shapes import every_kind

GHOST = Digest.of(b"nobody has this")
BLOB = Descriptor(media_types.OCI_LAYER_GZIP, GHOST, 15)
Call = Callable[[RegistryReader, RepositoryName], Any]
CALLS: dict[str, tuple[str, str, str, Call]] = {
    "tags": ("GET", "tags", "", lambda reader, name: reader.list_tags(name)),
    "head": ("HEAD", "manifest", "v1", lambda reader, name: reader.head_manifest(name, TagName("v1"))),
    "manifest": ("GET", "manifest", "v1", lambda reader, name: reader.get_manifest(name, TagName("v1"))),
    "blob": ("GET", "blob", GHOST, lambda reader, name: reader.fetch_blob(name, BLOB, MemoryWriter(BLOB))),
}
READY = Credentials(USERNAME, PASSWORD)


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> tuple[str, str, str, Call]:
    return CALLS[request.param]


def failed(
    scripted: Source,
    name: RepositoryName,
    call: tuple[str, str, str, Call],
    response: MemoryResponse,
    credentials: Credentials | None = None,
) -> tuple[dict[str, Any], int]:
    """What a caller is told, and how often was asked."""
    method, kind, reference, run = call
    for any_method in {method, "GET"}:
        scripted.registry.on(any_method, kind, reference, response)
    reader = scripted.reader(credentials)
    error = error_of(lambda: run(reader, name))
    return error, scripted.registry.log().count(method, kind)


@pytest.mark.parametrize(
    ("response", "credentials", "error", "is_temporary", "attempts"),
    [
        (refusal(404), None, "NotFound", False, 1),
        (refusal(404, "NAME_UNKNOWN"), None, "NotFound", False, 1),
        (refusal(403, "DENIED"), None, "RepositoryUnavailable", False, 1),
        (refusal(403, "DENIED"), READY, "AccessDenied", False, 1),
        (refusal(401, "UNAUTHORIZED", has_challenge=True), None, "RepositoryUnavailable", False, 1),
        (refusal(401), None, "ChallengeInvalid", False, 1),
        (refusal(429, "TOOMANYREQUESTS"), None, "RateLimited", True, 3),
        (refusal(500), None, "ServerUnavailable", True, 3),
        (refusal(503, "UNAVAILABLE"), None, "ServerUnavailable", True, 3),
        (refusal(418), None, "ProtocolError", False, 1),
        (NO_RESPONSE, None, "ServerUnavailable", True, 3),
    ],
)
def test_each_refusal_is_an_error_of_its_own_and_only_what_passes_is_tried_again(
    scripted: Source,
    name: RepositoryName,
    call: tuple[str, str, str, Call],
    response: MemoryResponse,
    credentials: Credentials | None,
    error: str,
    is_temporary: bool,
    attempts: int,
) -> None:
    found, asked = failed(scripted, name, call, response, credentials)
    is_head = call[0] == "HEAD" and response.status != 403  # a HEAD that is refused by 403 is decided by a GET
    assert (found["type"], found["is_temporary"]) == (error, is_temporary)
    assert found.get("status") == (response.status or None)
    if error != "ChallengeInvalid":
        assert found.get("codes", ()) == (() if is_head else response.codes)
    assert asked == attempts


def test_a_repository_that_is_unknown_is_recognised_by_the_code_alone(scripted: Source, name: RepositoryName) -> None:
    found, _ = failed(scripted, name, CALLS["manifest"], refusal(404, "NAME_UNKNOWN"))
    assert found["kind"] == "repository"
    found, _ = failed(scripted, name, CALLS["manifest"], refusal(404))
    assert found["kind"] == "manifest"


@pytest.mark.parametrize("credentials", [None, Credentials(USERNAME, "mistyped")], ids=["nobody", "mistyped"])
def test_credentials_that_are_missing_or_wrong_are_distinguished(
    private: Source, name: RepositoryName, credentials: Credentials | None, call: tuple[str, str, str, Call]
) -> None:
    error = error_of(lambda: call[3](private.reader(credentials), name))
    expected = "RepositoryUnavailable" if credentials is None else "AuthenticationFailed"
    assert (error["type"], error["status"], error["is_temporary"]) == (expected, 401, False)


def test_good_credentials_open_what_is_closed_to_others(private: Source, name: RepositoryName) -> None:
    push(private.registry, name, every_kind())
    assert private.reader(READY).list_tags(name).tags == tuple(sorted(every_kind().tags))


def test_a_wait_that_is_requested_is_kept_and_one_that_is_too_long_is_raised(
    scripted: Source, name: RepositoryName, call: tuple[str, str, str, Call]
) -> None:
    found, asked = failed(scripted, name, call, refusal(429, retry_after_seconds=7))
    assert (found["retry_after_seconds"], asked) == (7, 3)
    scripted.registry.reset_counts()
    found, asked = failed(scripted, name, call, refusal(429, retry_after_seconds=120))
    assert (found["retry_after_seconds"], asked) == (120, 1)


def test_the_third_head_of_a_tag_is_limited_and_requested_again(scripted: Source, name: RepositoryName) -> None:
    build = ContentBuilder(seed=5)
    build.tag("v1", image := build.image([]))
    push(scripted.registry, name, build.content())
    limited = refusal(429, "TOOMANYREQUESTS", retry_after_seconds=7)
    scripted.registry.on("HEAD", "manifest", "v1", HELD, HELD, limited, HELD)
    reader = scripted.reader()
    assert [reader.head_manifest(name, TagName("v1")).digest for _ in range(3)] == [image] * 3
    counts = reader.usage.counts()
    assert (counts.head_count, counts.retry_count) == (3, 1)
    assert scripted.registry.log().manifest_head_count == 4


def test_after_a_wait_that_was_too_long_nothing_is_requested_until_it_has_passed(
    scripted: Source, name: RepositoryName
) -> None:
    scripted.registry.on("GET", "tags", "", refusal(429, retry_after_seconds=120))
    reader = scripted.reader()
    for call in (CALLS["tags"], CALLS["head"], CALLS["manifest"]):
        error = error_of(lambda run=call[3]: run(reader, name))
        assert (error["type"], error["retry_after_seconds"]) == ("RateLimited", 120)
    assert len(scripted.registry.log().requests) == 1


def test_a_registry_that_stops_responding_is_temporary_for_everything(
    scripted: Source, name: RepositoryName, call: tuple[str, str, str, Call]
) -> None:
    scripted.registry.on_everything(NO_RESPONSE)
    error = error_of(lambda: call[3](scripted.reader(), name))
    assert (error["type"], error.get("status"), error["is_temporary"]) == ("ServerUnavailable", None, True)


@pytest.mark.parametrize(
    "response",
    [
        *(refusal(status, "DENIED", "said so") for status in (400, 403, 404, 418, 429, 500, 503)),
        refusal(401, "UNAUTHORIZED", has_challenge=True),
        refusal(401),
        document(b"no manifest"),
        document(b"{}", "application/json"),
        MemoryResponse(data=bytes(15)),
        Held(breaks_after=3),
    ],
    ids=lambda response: str(getattr(response, "status", "broken")),
)
@pytest.mark.parametrize("credentials", [None, READY], ids=["nobody", "known"])
def test_what_is_said_is_the_same(
    name: RepositoryName, call: tuple[str, str, str, Call], credentials: Credentials | None, response: Scripted
) -> None:
    """Tests of what a sync says may stand on the reader in memory."""
    method, kind, reference, run = call
    registry = MemoryRegistry()
    registry.push_blob(name, GHOST, b"nobody has this")
    registry.push_manifest(name, "v1", media_types.OCI_MANIFEST, b'{"schemaVersion": 2, "config": {}, "layers": []}')
    for any_method in {method, "GET"}:
        registry.on(any_method, kind, reference, response)
    with over_http(registry) as server:
        sources = [Source(registry, False, ""), Source(registry, True, server.base)]
        said = [outcome(lambda source=source: run(source.reader(credentials), name)) for source in sources]
        sources[1].close()
        assert said[0].replace(registry.netloc, server.netloc) == said[1]


def said_by_both(
    registry: MemoryRegistry, script: Callable[[], None], call: Callable[[RegistryReader], object]
) -> None:
    """Calls both readers after the same script, and compares their words."""
    said = []
    with over_http(registry) as server:
        for source in (Source(registry, False, ""), Source(registry, True, server.base)):
            script()
            said.append(outcome(lambda source=source: call(source.reader())))
            source.close()
        assert said[0], "there is an error"
        assert said[0].replace(registry.netloc, server.netloc) == said[1]


@pytest.mark.parametrize(
    "pages",
    [
        (tag_page(["a"], has_more=True), refusal(404), tag_page(["a"], has_more=True), refusal(404)),
        (tag_page(["a"], has_more=True), refusal(400)),
        (tag_page(["a"], has_more=True), tag_page(["a"])),
    ],
    ids=["vanished", "not served", "repeated"],
)
def test_what_is_said_of_a_listing_is_the_same(name: RepositoryName, pages: tuple[MemoryResponse, ...]) -> None:
    registry = MemoryRegistry()
    said_by_both(registry, lambda: registry.on("GET", "tags", "", *pages), lambda reader: reader.list_tags(name))


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    "responses",
    [
        (refusal(403, "DENIED", "not for you"),),
        (refusal(401, has_challenge=True),),
        (refusal(503),),
        (referrers_page([]), refusal(404)),
        (referrers_page([{"mediaType": "a/b", "digest": GHOST, "size": 1}], has_more=True), refusal(404)),
    ],
    ids=["403", "401", "503", "one alone", "later page"],
)
def test_what_is_said_of_referrers_is_the_same(
    name: RepositoryName, responses: tuple[MemoryResponse, ...], is_known: bool
) -> None:
    registry, subjects = MemoryRegistry(), (GHOST, Digest.of(b"another"))

    def call(reader: RegistryReader) -> None:
        for subject in subjects:
            reader.list_referrers_by_api(name, subject, is_known=is_known)

    said_by_both(registry, lambda: registry.on("GET", "referrers", ANY, *responses), call)


def test_what_is_said_of_an_api_that_is_hidden_is_the_same(name: RepositoryName) -> None:
    registry = MemoryRegistry()
    said_by_both(
        registry,
        lambda: registry.on("GET", "referrers", ANY, refusal(404)),
        lambda reader: reader.list_referrers_by_api(name, GHOST, is_known=True),
    )


def outcome(call: Callable[[], object]) -> str:
    """The error that ``call`` raises, in its words; nothing where it raises none."""
    try:
        call()
    except RegistrySyncError as error:
        return f"{type(error).__name__}: {error}"
    return ""
