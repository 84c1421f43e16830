"""What a place says that the registry redirects to is not the registry's word about a manifest."""

from __future__ import annotations

import json

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.errors import AccessDenied, NotFound, ProtocolError, RegistryError, ServerUnavailable
from support.hostile_registry import HostileRegistry, Raw, errors_reply, json_reply, reply
from support.oci import REPOSITORY

CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
IMAGE = json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": []}).encode()
DIGEST = Digest.of(IMAGE)
TAG = TagName("latest")
BY_TAG = f"/v2/{REPOSITORY}/manifests/{TAG}"
REFUSALS = [400, 401, 403, 404, 405, 410, 501]
GIVEN = reply(200, IMAGE, content_type=media_types.OCI_MANIFEST)


def to(host: HostileRegistry, path: str = "/signed", status: int = 307) -> Raw:
    return reply(status, b"", [("Location", f"{host.base}{path}?signature=x")])


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("redirect", [302, 307])
@pytest.mark.parametrize("is_elsewhere", [True, False])
def test_a6_04_a_head_that_is_refused_where_it_leads_is_requested_once_by_get(
    registry, other_host, client_of, status: int, redirect: int, is_elsewhere: bool
) -> None:
    """Storage that signs for GET refuses a HEAD of the same address."""
    place = other_host if is_elsewhere else registry
    registry.on("HEAD", BY_TAG, to(place, status=redirect))
    place.on("HEAD", "/signed", reply(status))
    registry.on("GET", BY_TAG, to(place, status=redirect))
    place.on("GET", "/signed", GIVEN)
    client = client_of(registry)
    head = client.head_manifest(REPOSITORY, TAG)
    assert (head.digest, head.media_type, head.size_bytes) == (DIGEST, media_types.OCI_MANIFEST, len(IMAGE))
    assert [request.method for request in registry.asked(path=BY_TAG)] == ["HEAD", "GET"]
    assert (client.usage.counts().head_count, client.usage.counts().manifest_get_count) == (1, 1)


def test_a6_04_a_head_that_is_refused_where_get_is_not_is_requested_by_get(registry, client_of) -> None:
    registry.on("HEAD", BY_TAG, reply(403))
    registry.on("GET", BY_TAG, GIVEN)
    assert client_of(registry).head_manifest(REPOSITORY, TAG).digest == DIGEST


def test_a6_04_what_the_registry_itself_says_of_a_tag_stands(registry, client_of) -> None:
    registry.on("HEAD", BY_TAG, reply(404))
    registry.on("GET", BY_TAG, GIVEN)
    with pytest.raises(NotFound):
        client_of(registry).head_manifest(REPOSITORY, TAG)
    assert registry.asked("GET") == []


def test_a6_18_a_tag_is_gone_when_a_registry_says_so_wherever_it_is(registry, other_host, client_of) -> None:
    """One that only redirects to another registry has that one's word."""
    for method in ("HEAD", "GET"):
        registry.on(method, BY_TAG, to(other_host))
        other_host.on(method, "/signed", errors_reply(404, "MANIFEST_UNKNOWN"))
    with pytest.raises(NotFound) as gone:
        client_of(registry).head_manifest(REPOSITORY, TAG)
    assert gone.value.kind == "manifest"
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]


def test_a6_18_a_store_that_lacks_a_manifest_says_nothing_of_its_tag(registry, other_host, client_of) -> None:
    for method in ("HEAD", "GET"):
        registry.on(method, BY_TAG, to(other_host))
        other_host.on(method, "/signed", reply(404, "<Error><Code>NoSuchKey</Code></Error>"))
    with pytest.raises(ProtocolError, match=r"NoSuchKey.*redirects there"):
        client_of(registry).head_manifest(REPOSITORY, TAG)


@pytest.mark.parametrize("status", REFUSALS)
def test_a5_05_a_manifest_that_is_refused_where_it_leads_is_requested_once_more(
    registry, other_host, client_of, status: int
) -> None:
    registry.on("GET", BY_TAG, to(other_host))
    other_host.on("GET", "/signed", reply(status), GIVEN)
    client = client_of(registry)
    assert client.get_manifest(REPOSITORY, TAG).digest == DIGEST
    assert len(registry.asked("GET", BY_TAG)) == 2
    assert client.usage.counts().retry_count == 0


@pytest.mark.parametrize("status", REFUSALS)
def test_a5_05_a_manifest_that_is_refused_twice_is_refused(registry, other_host, client_of, status: int) -> None:
    registry.on("GET", BY_TAG, to(other_host))
    other_host.on("GET", "/signed", reply(status))
    with pytest.raises(AccessDenied if status in (401, 403) else ProtocolError) as refused:
        client_of(registry).get_manifest(REPOSITORY, TAG)
    assert not isinstance(refused.value, NotFound)
    assert len(registry.asked("GET", BY_TAG)) == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a9_04_an_outage_where_a_request_leads_is_tried_again_as_any(
    registry, other_host, client_of, method: str
) -> None:
    registry.on(method, BY_TAG, to(other_host))
    other_host.on(method, "/signed", reply(503))
    client = client_of(registry, max_attempts=3)
    with pytest.raises(ServerUnavailable):
        (client.get_manifest if method == "GET" else client.head_manifest)(REPOSITORY, TAG)
    assert [request.method for request in registry.requests] == [method] * 3


PAGE = reply(200, "<html><head><title>Welcome</title></head></html>", content_type="text/html; charset=utf-8")
NO_PAGE = reply(404, "<html><head><title>Nothing here</title></head></html>", content_type="text/html")
WORDS = "does not respond as a registry at /v2/"


@pytest.mark.parametrize("page", [PAGE, NO_PAGE])
@pytest.mark.parametrize("ask", ["tags", "get", "head", "ping"])
def test_a2_01_a_web_page_in_place_of_a_registry_is_said_so_whatever_is_requested(
    registry, client_of, page: Raw, ask: str
) -> None:
    """In the words of the test of a connection."""
    registry.on("GET", "/v2/", page)
    for path in (f"/v2/{REPOSITORY}/tags/list", BY_TAG):
        registry.on("GET", path, page)
        registry.on("HEAD", path, page)
    client = client_of(registry)
    asked = {
        "tags": lambda: client.list_tags(REPOSITORY),
        "get": lambda: client.get_manifest(REPOSITORY, TAG),
        "head": lambda: client.head_manifest(REPOSITORY, TAG),
        "ping": client.ping,
    }
    with pytest.raises(RegistryError) as refused:
        asked[ask]()
    assert type(refused.value).__name__ == "NotARegistry"
    assert f"{registry.netloc} {WORDS}: " in str(refused.value)
    assert "a web page ('" in str(refused.value)


def test_a2_01_a_web_page_of_a_registry_is_reported_as_such_and_the_registry_requested_once(
    registry, client_of
) -> None:
    registry.on("GET", "/v2/", reply(200, "{}"))
    registry.on("GET", f"/v2/{REPOSITORY}/tags/list", PAGE)
    registry.on("HEAD", BY_TAG, PAGE)
    client = client_of(registry)
    for ask in (lambda: client.list_tags(REPOSITORY), lambda: client.head_manifest(REPOSITORY, TAG)):
        with pytest.raises(ProtocolError, match="responds with a web page"):
            ask()
    assert len(registry.asked(path="/v2/")) == 1


@pytest.mark.parametrize("spoke", ["tags", "a manifest", "the list when asked"])
def test_a2_01_a_registry_that_serves_paths_of_repositories_alone_is_one(registry, client_of, spoke: str) -> None:
    """/v2/ is 404 before some proxies."""
    registry.on("GET", "/v2/", PAGE)
    registry.on("GET", f"/v2/{REPOSITORY}/tags/list", json_reply({"tags": ["other"]}))
    registry.on("GET", BY_TAG, PAGE)
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/other", GIVEN)
    client = client_of(registry)
    if spoke == "tags":
        assert client.list_tags(REPOSITORY).tags == ("other",)
    elif spoke == "a manifest":
        client.get_manifest(REPOSITORY, TagName("other"))
    for _ in range(2):
        with pytest.raises(RegistryError) as refused:
            client.get_manifest(REPOSITORY, TAG)
        assert type(refused.value).__name__ == "ProtocolError"
    is_asked = spoke == "the list when asked"
    assert len(registry.asked(path="/v2/")) == is_asked
    assert len(registry.asked(path=f"/v2/{REPOSITORY}/tags/list")) == (is_asked or spoke == "tags")


@pytest.mark.parametrize(
    ("response", "is_registry"),
    [
        (errors_reply(404, "NAME_UNKNOWN"), True),
        (reply(503), True),
        (errors_reply(404, "NOT_FOUND"), False),
        (json_reply({"message": "no"}), False),
        (reply(404), False),
    ],
)
def test_a2_01_what_says_nothing_as_a_registry_does_is_none(
    registry, client_of, response: Raw, is_registry: bool
) -> None:
    registry.on("GET", "/v2/", reply(404))
    registry.on("GET", BY_TAG, PAGE)
    registry.on("GET", f"/v2/{REPOSITORY}/tags/list", response)
    with pytest.raises(RegistryError) as refused:
        client_of(registry).get_manifest(REPOSITORY, TAG)
    assert (type(refused.value).__name__ == "NotARegistry") is not is_registry


def test_a2_01_an_error_in_the_registrys_own_words_requires_no_check_of_the_registry(registry, client_of) -> None:
    registry.on("GET", f"/v2/{REPOSITORY}/tags/list", errors_reply(404, "NAME_UNKNOWN"))
    with pytest.raises(NotFound):
        client_of(registry).list_tags(REPOSITORY)
    assert registry.asked(path="/v2/") == []
