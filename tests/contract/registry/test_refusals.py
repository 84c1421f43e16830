"""Refusals, limits and outages: the same error for each, with what it says to programs, after as many attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryReader
from support.filling import push
from support.images import ContentBuilder
from support.memory_registry import HELD, NO_RESPONSE, MemoryResponse, refusal
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


def test_a_repository_that_is_unknown_is_told_by_the_code_alone(scripted: Source, name: RepositoryName) -> None:
    found, _ = failed(scripted, name, CALLS["manifest"], refusal(404, "NAME_UNKNOWN"))
    assert found["kind"] == "repository"
    found, _ = failed(scripted, name, CALLS["manifest"], refusal(404))
    assert found["kind"] == "manifest"


@pytest.mark.parametrize("credentials", [None, Credentials(USERNAME, "mistyped")], ids=["nobody", "mistyped"])
def test_credentials_that_are_missing_or_wrong_are_told_apart(
    private: Source, name: RepositoryName, credentials: Credentials | None, call: tuple[str, str, str, Call]
) -> None:
    error = error_of(lambda: call[3](private.reader(credentials), name))
    expected = "RepositoryUnavailable" if credentials is None else "AuthenticationFailed"
    assert (error["type"], error["status"], error["is_temporary"]) == (expected, 401, False)


def test_good_credentials_open_what_is_closed_to_others(private: Source, name: RepositoryName) -> None:
    push(private.registry, name, every_kind())
    assert private.reader(READY).list_tags(name).tags == tuple(sorted(every_kind().tags))


def test_a_wait_that_is_asked_for_is_kept_and_one_that_is_too_long_is_raised(
    scripted: Source, name: RepositoryName, call: tuple[str, str, str, Call]
) -> None:
    found, asked = failed(scripted, name, call, refusal(429, retry_after_seconds=7))
    assert (found["retry_after_seconds"], asked) == (7, 3)
    scripted.registry.reset_counts()
    found, asked = failed(scripted, name, call, refusal(429, retry_after_seconds=120))
    assert (found["retry_after_seconds"], asked) == (120, 1)


def test_the_third_head_of_a_tag_is_limited_and_asked_again(scripted: Source, name: RepositoryName) -> None:
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


def test_after_a_wait_that_was_too_long_nothing_is_asked_until_it_has_passed(
    scripted: Source, name: RepositoryName
) -> None:
    scripted.registry.on("GET", "tags", "", refusal(429, retry_after_seconds=120))
    reader = scripted.reader()
    for call in (CALLS["tags"], CALLS["head"], CALLS["manifest"]):
        error = error_of(lambda run=call[3]: run(reader, name))
        assert (error["type"], error["retry_after_seconds"]) == ("RateLimited", 120)
    assert len(scripted.registry.log().requests) == 1


def test_a_registry_that_stops_to_answer_is_temporary_for_everything(
    scripted: Source, name: RepositoryName, call: tuple[str, str, str, Call]
) -> None:
    scripted.registry.on_everything(NO_RESPONSE)
    error = error_of(lambda: call[3](scripted.reader(), name))
    assert (error["type"], error.get("status"), error["is_temporary"]) == ("ServerUnavailable", None, True)
