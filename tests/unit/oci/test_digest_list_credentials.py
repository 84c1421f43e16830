"""Which credentials and tokens the lists of digests are asked with, and that pulls are asked with no others."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.references import TagName
from registry_sync.oci.auth.credentials import Credentials
from support.digest_list_apis import (
    APIS,
    BASIC,
    NAME,
    USER,
    A,
    digests,
    read,
    serve,
    with_tokens,
)
from support.hostile_registry import HostileRegistry, errors_reply, reply

pytestmark = pytest.mark.rule("A7.13")


@pytest.mark.parametrize(
    ("source", "scope"),
    [
        (DigestList.GITLAB, f"repository:{NAME}:pull"),
        (DigestList.AZURE, f"repository:{NAME}:metadata_read"),
        (DigestList.ZOT, f"repository:{NAME}:pull"),
    ],
)
def test_a_token_is_for_what_the_list_requires_and_one_for_pulls_stays(
    registry: HostileRegistry, of: Any, source: DigestList, scope: str
) -> None:
    (api,) = (api for api in APIS if api.source is source)
    page = api.page([api.entry("v0000", A)], False)
    scopes = with_tokens(registry, api.path, page)
    client = of(registry, source, USER)
    client.head_manifest(NAME, TagName("v0000"))
    assert read(client, digests(10)).digests == {"v0000": A}
    client.head_manifest(NAME, TagName("v0000"))
    assert [scopes[0], scopes[-1]] == [[f"repository:{NAME}:pull"], [scope]]
    assert len(scopes) == len({*map(tuple, scopes)}), "one of a kind"


def test_a_token_for_the_list_that_is_refused_leaves_pulls_alone(registry: HostileRegistry, of: Any) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.AZURE)
    with_tokens(registry, api.path, {"tags": []}, refuses="metadata_read")
    client = of(registry, api.source, USER)
    listed = read(client, digests(10))
    assert (listed.digests, listed.is_lasting) == ({}, True)
    assert client.head_manifest(NAME, TagName("v0000")).digest == A


@pytest.mark.parametrize("source", [DigestList.GITLAB, DigestList.AZURE, DigestList.ZOT])
def test_a_challenge_of_the_list_is_not_used_for_pulls(registry: HostileRegistry, of: Any, source: DigestList) -> None:
    """A proxy before the API that asks for a password must not get one for each pull."""
    (api,) = (api for api in APIS if api.source is source)
    with_tokens(registry, "/unused", {})
    registry.on("GET", api.path, errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", "Basic realm=x")]))
    client = of(registry, source, USER)
    client.head_manifest(NAME, TagName("v0000"))
    assert read(client, digests(10)).is_lasting
    assert client.head_manifest(NAME, TagName("v0000")).digest == A
    sent = [request.header("authorization") for request in registry.asked("HEAD")]
    assert [value.partition("-")[0] if value else None for value in sent] == [None, "Bearer token", "Bearer token"]


@pytest.mark.parametrize("source", [DigestList.QUAY, DigestList.DOCKER_HUB])
@pytest.mark.parametrize("credentials", [USER, Credentials(registry_token="secret-token")], ids=["password", "token"])
def test_a_list_for_everybody_gets_neither_password_nor_token(
    registry: HostileRegistry, of: Any, source: DigestList, credentials: Credentials
) -> None:
    (api,) = (api for api in APIS if api.source is source)
    known = digests(10)
    with_tokens(registry, api.path, {})
    serve(registry, api, known)
    client = of(registry, source, credentials)
    if credentials.has_password:
        client.head_manifest(NAME, TagName("v0000"))
    assert read(client, known).digests == known
    assert [request.header("authorization") for request in registry.asked("GET", api.path)] == [None]


def test_harbor_gets_the_password_at_the_registry_itself(registry: HostileRegistry, of: Any) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.HARBOR)
    known = digests(10)
    serve(registry, api, known)
    assert read(of(registry, api.source, USER), known).digests == known
    assert [request.header("authorization") for request in registry.requests] == [BASIC, BASIC]


def test_harbor_gets_no_password_over_plain_http_and_none_at_another_host(
    registry: HostileRegistry, other_host: HostileRegistry, of: Any
) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.HARBOR)
    known = digests(10)
    serve(registry, api, known)
    serve(other_host, api, known)
    listed = read(of(registry, api.source, USER, allow_insecure_credentials=False), known)
    assert "plain http" in (listed.problem or "")
    assert registry.requests == []
    registry.on("HEAD", f"/v2/{NAME}/manifests/a", reply(200))
    elsewhere = of(registry, api.source, USER, digest_list_url=other_host.base)
    elsewhere.head_manifest(NAME, TagName("a"))
    assert read(elsewhere, known).digests == known
    assert [request.header("authorization") for request in other_host.requests] == [None, None]
