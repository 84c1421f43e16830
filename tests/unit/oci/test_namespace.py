"""The namespace is sent to a mirror with each request for content, and to no other host."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import TagName
from registry_sync.errors import RealmRefused
from registry_sync.oci.auth.credentials import Credentials
from support.hostile_registry import Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, MemoryWriter

pytestmark = pytest.mark.rule("A9.11")
TAGS = f"/v2/{REPOSITORY}/tags/list"
DATA = b"x" * 100
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))
BLOB_PATH = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"


def namespace_of(request: Request) -> list[str]:
    return parse_qs(request.query).get("ns", [])


def test_every_request_for_content_says_it_and_the_other_parameters_stay(registry, client_of) -> None:
    first = json_reply({"tags": ["a"]}, headers=[("Link", f'<{TAGS}?n=1&last=a>; rel="next"')])
    registry.on("GET", TAGS, first, json_reply({"tags": ["b"]}))
    registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/a", reply(200))
    registry.on("GET", BLOB_PATH, reply(200, DATA))
    client = client_of(registry, namespace="registry.example:8443")
    assert client.list_tags(REPOSITORY).tags == ("a", "b")
    client.head_manifest(REPOSITORY, TagName("a"))
    client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert [namespace_of(request) for request in registry.requests] == [["registry.example:8443"]] * 4
    assert registry.requests[1].target == f"{TAGS}?n=1&last=a&ns=registry.example:8443"
    assert registry.requests[3].target == f"{BLOB_PATH}?ns=registry.example:8443"


def test_a_link_that_says_it_already_is_taken_as_it_is(registry, client_of) -> None:
    first = json_reply({"tags": ["a"]}, headers=[("Link", f'<{TAGS}?last=a&ns=docker.io>; rel="next"')])
    registry.on("GET", TAGS, first, json_reply({"tags": ["b"]}))
    client_of(registry, namespace="docker.io").list_tags(REPOSITORY)
    assert registry.requests[1].target == f"{TAGS}?last=a&ns=docker.io"


def test_nothing_is_said_unless_it_is_configured(registry, client_of) -> None:
    registry.on("GET", TAGS, json_reply({"tags": []}))
    client_of(registry).list_tags(REPOSITORY)
    assert namespace_of(registry.requests[0]) == []


def test_pings_token_services_and_redirect_targets_are_not_reported(registry, other_host, client_of) -> None:
    challenge = errors_reply(401, "X", headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/v2/auth"')])
    registry.on("GET", "/v2/", json_reply({}))
    registry.on("GET", "/v2/auth", json_reply({"token": "t"}))
    registry.on("GET", BLOB_PATH, challenge, reply(307, headers=[("Location", f"{other_host.base}/blob?sig=a%2Fb")]))
    other_host.on("GET", "/blob", reply(307, headers=[("Location", f"{registry.base}/v2/signed?sig=c%2Fd")]))
    registry.on("GET", "/v2/signed", reply(200, DATA))
    client = client_of(registry, namespace="docker.io")
    client.ping()
    client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    asked = {request.path: namespace_of(request) for request in (*registry.requests, *other_host.requests)}
    assert asked == {"/v2/": [], "/v2/auth": [], BLOB_PATH: ["docker.io"], "/blob": [], "/v2/signed": []}
    assert other_host.requests[0].target == "/blob?sig=a%2Fb"
    assert registry.requests[-1].target == "/v2/signed?sig=c%2Fd"


def test_a_mirror_that_sends_to_the_upstreams_token_service_is_not_followed_with_a_password(
    registry, client_of
) -> None:
    """The credentials are the mirror's; what it stands in for is not trusted with them."""
    header = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    registry.on("GET", TAGS, errors_reply(401, "X", headers=[("WWW-Authenticate", header)]))
    client = client_of(registry, Credentials("mirror-user", "mirror-secret"), namespace="docker.io")
    with pytest.raises(RealmRefused, match=r"auth\.docker\.io"):
        client.list_tags(REPOSITORY)
