"""Which of the APIs a registry is asked by, and Google's, whose list of tags has the digests."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DIGEST_APIS, DigestList, digest_list_by_challenge, known_registry
from registry_sync.domain.references import TagName
from registry_sync.errors import PaginationError
from support.digest_list_apis import (
    APIS,
    NAME,
    USER,
    A,
    digests,
    read,
    with_tokens,
)
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply

pytestmark = pytest.mark.rule("A7.13")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("quay.io", DigestList.QUAY),
        ("registry.gitlab.com", DigestList.GITLAB),
        ("contoso.azurecr.io", DigestList.AZURE),
        ("contoso.azurecr.cn", DigestList.AZURE),
        ("registry-1.docker.io", None),
        ("gcr.io", None),
        ("ghcr.io", None),
    ],
)
def test_the_api_of_a_known_registry_is_asked_unless_it_is_on_another_host(
    host: str, expected: DigestList | None
) -> None:
    assert known_registry(host).digest_list is expected
    assert expected is None or DIGEST_APIS[expected].host is None


@pytest.mark.parametrize(
    ("service", "path", "expected"),
    [
        ("container_registry", "/jwt/auth", DigestList.GITLAB),
        ("quay.example", "/v2/auth", DigestList.QUAY),
        ("harbor-registry", "/service/token", None),
        ("container_registry", "/token", None),
        (None, "/v2/auth", None),
    ],
)
def test_a_registry_on_any_host_is_recognised_by_its_challenge(
    service: str | None, path: str, expected: DigestList | None
) -> None:
    assert digest_list_by_challenge(service, path) is expected


def test_auto_asks_the_api_that_the_challenge_shows_and_before_one_nothing(
    registry: HostileRegistry, client_of: Any
) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.GITLAB)
    with_tokens(registry, api.path, [api.entry("v0000", A)])
    token = registry._answers["GET", "/token"]
    registry.on("GET", "/jwt/auth", *token)
    realm = f'Bearer realm="{registry.base}/jwt/auth",service="container_registry"'

    def head(request: Request) -> Raw:
        if request.header("authorization"):
            return reply(200, b"", [("Docker-Content-Digest", A)])
        return errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", realm)])

    registry.on("HEAD", f"/v2/{NAME}/manifests/v0000", head)
    client = client_of(registry, USER)
    assert client.list_tag_digests(NAME, frozenset(digests(10)), most_requests=9) is None
    client.head_manifest(NAME, TagName("v0000"))
    assert read(client, digests(10)).digests == {"v0000": A}
    off = client_of(registry, USER, digest_list=DigestList.OFF)
    off.head_manifest(NAME, TagName("v0000"))
    assert off.list_tag_digests(NAME, frozenset(digests(10)), most_requests=9) is None


# -- Google -------------------------------------------------------------------------------------------------------


def google(tags: int, images: int) -> Raw:
    """A list of Google's, of which ``tags`` images have a tag."""
    known = [Digest.of(str(number).encode()) for number in range(images)]
    names = [f"v{number}" for number in range(tags)]
    listed = {digest: {"tag": [names[n]] if n < tags else []} for n, digest in enumerate(known)}
    return json_reply({"name": NAME, "tags": names, "manifest": listed, "child": []})


@pytest.mark.parametrize(("tags", "images"), [(600, 1000), (1000, 1000), (1000, 1600)])
def test_a_list_of_google_that_may_end_at_the_number_requested_is_requested_whole(
    registry: HostileRegistry, client_of: Any, tags: int, images: int
) -> None:
    """``n`` counts images there, so that a thousand of them may be six hundred tags of more."""
    registry.on("GET", f"/v2/{NAME}/tags/list", google(tags, images), google(1500, 1700))
    assert len(client_of(registry).list_tags(NAME).tags) == 1500
    assert [request.query for request in registry.requests] == ["n=1000", "n=10000"]


@pytest.mark.slow
def test_a_list_of_google_that_may_be_incomplete_is_an_error(registry: HostileRegistry, client_of: Any) -> None:
    registry.on("GET", f"/v2/{NAME}/tags/list", google(600, 1000), google(6000, 10_000))
    with pytest.raises(PaginationError, match=r"lists 10,000 images, the most that it lists"):
        client_of(registry).list_tags(NAME)


def test_a_list_of_google_that_does_not_heed_the_number_is_whole(registry: HostileRegistry, client_of: Any) -> None:
    registry.on("GET", f"/v2/{NAME}/tags/list", google(1200, 1300))
    listing = client_of(registry).list_tags(NAME)
    assert (len(listing.tags), len(listing.digests), len(registry.requests)) == (1200, 1200, 1)
