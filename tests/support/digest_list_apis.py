"""The APIs by which registries list the digests of all tags, served by a scripted registry and read by a client."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DIGEST_APIS, DigestList
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.tag_digests import TagDigests
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply

NAME = RepositoryName("team/sub/app")
USER = Credentials("user", "secret password")
BASIC = f"Basic {base64.b64encode(b'user:secret password').decode()}"
A, B = Digest.of(b"a"), Digest.of(b"b")


def digests(count: int) -> dict[TagName, Digest]:
    return {TagName(f"v{number:04}"): Digest.of(str(number).encode()) for number in range(count)}


@dataclass(frozen=True)
class Api:
    """How one of the APIs is served: its path, an entry of a page, and a page."""

    source: DigestList
    path: str
    entry: Callable[[str, object], dict[str, Any]]
    page: Callable[[list[Any], bool], Any]
    more: Mapping[str, list[str]]


APIS = [
    Api(
        DigestList.QUAY,
        "/api/v1/repository/team/sub/app/tag/",
        lambda name, digest: {"name": name, "manifest_digest": digest, "is_manifest_list": True, "size": 1},
        lambda entries, more: {"tags": entries, "page": 1, "has_additional": more},
        {"onlyActiveTags": ["true"], "limit": ["100"]},
    ),
    Api(
        DigestList.GITLAB,
        "/gitlab/v1/repositories/team/sub/app/tags/list/",
        lambda name, digest: {"name": name, "digest": digest, "media_type": "a/b", "size_bytes": 1},
        lambda entries, _more: entries,
        {"n": ["1000"]},
    ),
    Api(
        DigestList.AZURE,
        "/acr/v1/team/sub/app/_tags",
        lambda name, digest: {"name": name, "digest": digest, "signed": False},
        lambda entries, _more: {"registry": "r.azurecr.io", "imageName": NAME, "tags": entries},
        {"n": ["1000"]},
    ),
    Api(
        DigestList.HARBOR,
        "/api/v2.0/projects/team/repositories/sub%252Fapp/artifacts",
        lambda name, digest: {"digest": digest, "type": "IMAGE", "tags": [{"name": name, "immutable": False}]},
        lambda entries, _more: entries,
        {"with_tag": ["true"], "q": ["tags=*"], "page_size": ["100"]},
    ),
    Api(
        DigestList.ZOT,
        "/v2/_zot/ext/search",
        lambda name, digest: {"Tag": name, "Digest": digest},
        lambda entries, _more: {"data": {"ImageList": {"Results": entries}}},
        {"query": ['{ImageList(repo:"team/sub/app"){Results{Tag Digest}}}']},
    ),
    Api(
        DigestList.DOCKER_HUB,
        "/v2/namespaces/team/repositories/sub%2Fapp/tags",
        lambda name, digest: {"name": name, "digest": digest, "images": [{"digest": A, "architecture": "amd64"}]},
        lambda entries, more: {"count": 9, "next": "https://elsewhere.example/" if more else None, "results": entries},
        {"page_size": ["100"]},
    ),
]
PAGED = {DigestList.QUAY, DigestList.HARBOR, DigestList.DOCKER_HUB}
LINKED = {DigestList.GITLAB, DigestList.AZURE}
each_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.source.value)


def serve(registry: HostileRegistry, api: Api, known: Mapping[TagName, Digest]) -> None:
    """Serves that list, and the project of Harbor's."""
    size = DIGEST_APIS[api.source].page_size
    names = sorted(known)

    def respond(request: Request) -> Raw:
        query = parse_qs(request.query)
        start = (int(query["page"][0]) - 1) * size if "page" in query else 0
        start = names.index(query["last"][0]) + 1 if "last" in query else start  # type: ignore[arg-type]
        part = names[start : start + size]
        has_more = start + size < len(names)
        link = [("Link", f'<{api.path}?n={size}&last={part[-1]}&orderby=>; rel="next"')] if has_more and part else []
        page = api.page([api.entry(name, known[name]) for name in part], has_more)
        return json_reply(page, headers=link if api.source in LINKED else [])

    registry.on("GET", api.path, respond)
    registry.on("GET", "/api/v2.0/projects/team", json_reply({"name": "team", "registry_id": None}))


def read(
    client: RegistryClient, tags: Iterable[TagName], name: RepositoryName = NAME, most_requests: int = 50
) -> TagDigests:
    listed = client.list_tag_digests(name, frozenset(tags), most_requests=most_requests)
    assert listed is not None
    return listed


def with_tokens(registry: HostileRegistry, path: str, page: Any, *, refuses: str = "") -> list[list[str]]:
    """Has the registry ask for a token; returns the scopes that tokens are requested for."""
    scopes: list[list[str]] = []
    challenge = [("WWW-Authenticate", f'Bearer realm="{registry.base}/token",service="r"')]

    def token(request: Request) -> Raw:
        scopes.append(parse_qs(request.query).get("scope", []))
        if refuses and any(refuses in scope for scope in scopes[-1]):
            return errors_reply(401, "UNAUTHORIZED")
        return json_reply({"token": f"token-{len(scopes)}"})

    def guarded(content: Any) -> Callable[[Request], Raw]:
        def respond(request: Request) -> Raw:
            if (request.header("authorization") or "").startswith("Bearer token-"):
                return content if isinstance(content, Raw) else json_reply(content)
            return errors_reply(401, "UNAUTHORIZED", headers=challenge)

        return respond

    registry.on("GET", "/token", token)
    registry.on("GET", path, guarded(page))
    head = reply(200, b"", [("Docker-Content-Digest", A)])
    registry.on("HEAD", f"/v2/{NAME}/manifests/v0000", guarded(head))
    return scopes
