"""The APIs by which registries list the digests of all tags: what each is asked, with what, and what its pages mean."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DIGEST_APIS, DigestList, digest_list_by_challenge, known_registry
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import PaginationError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.tag_digests import MAX_PAGE_BYTES, MAX_SECONDS, TagDigests
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import FakeTime

pytestmark = pytest.mark.rule("A7.13")
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


@pytest.fixture
def of(client_of: Callable[..., RegistryClient]) -> Callable[..., RegistryClient]:
    """A client that asks one of the APIs, at the registry's own address unless the options say another."""

    def make(registry: HostileRegistry, source: DigestList, credentials: Any = None, **options: Any) -> RegistryClient:
        where = {"digest_list_url": registry.base} if DIGEST_APIS[source].host else {}
        return client_of(registry, credentials, digest_list=source, **where | options)

    return make


@each_api
def test_each_api_is_read_to_its_end(registry: HostileRegistry, of: Any, api: Api) -> None:
    known = digests(250 if api.source in PAGED else 2500)
    serve(registry, api, known)
    client = of(registry, api.source)
    listed = read(client, known)
    assert listed.digests == known
    assert (listed.problem, listed.is_lasting) == (None, False)
    assert listed.page_count == (1 if api.source is DigestList.ZOT else 3)
    asked = registry.asked("GET", api.path)
    assert len(asked) == listed.page_count
    first = parse_qs(asked[0].query)
    assert {name: first[name] for name in api.more} == api.more
    assert all(request.header("authorization") is None for request in registry.requests)
    assert all(request.header("cache-control") == "no-cache" for request in registry.requests)
    assert client.usage.counts().digest_page_count == len(registry.requests)


@each_api
def test_a_list_is_not_asked_for_where_heads_are_fewer(registry: HostileRegistry, of: Any, api: Api) -> None:
    known = digests(150 if api.source in PAGED else 1500)
    serve(registry, api, known)
    most = {DigestList.ZOT: 0, DigestList.HARBOR: 2}.get(api.source, 1)
    assert of(registry, api.source).list_tag_digests(NAME, frozenset(known), most_requests=most) is None
    assert registry.requests == []


@each_api
@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405, 406, 410, 415, 501])
def test_a_refusal_is_reported_with_its_status(registry: HostileRegistry, of: Any, api: Api, status: int) -> None:
    known = digests(10)
    serve(registry, api, known)
    where = [("Location", f"{registry.base}/login")] if status < 400 else []
    registry.on("GET", api.path, errors_reply(status, "DENIED", headers=where))
    registry.on("GET", "/login", json_reply({"tags": []}))
    listed = read(of(registry, api.source), known)
    assert (listed.digests, listed.page_count, listed.is_lasting) == ({}, 0, True)
    assert listed.problem


@each_api
def test_a_redirect_to_another_host_gets_nothing(
    registry: HostileRegistry, other_host: HostileRegistry, of: Any, api: Api
) -> None:
    known = digests(10)
    serve(registry, api, known)
    registry.on("GET", api.path, reply(307, b"", [("Location", f"{other_host.base}{api.path}")]))
    serve(other_host, api, known)
    listed = read(of(registry, api.source, USER), known)
    assert (listed.digests, listed.is_lasting) == ({}, True)
    assert all(request.header("authorization") is None for request in other_host.requests)


BODIES: dict[str, Raw] = {
    "web page": reply(200, "<!doctype html><title>Sign in</title>", content_type="text/html"),
    "nothing": reply(200, b""),
    "null": json_reply(None),
    "other": json_reply({"items": []}),
    "errors": json_reply({"errors": [{"message": "no such field"}], "data": None}),
    "gzip": reply(200, b"\x1f\x8b\x08\x00", [("Content-Encoding", "gzip")]),
    "endless": reply(200, b"[", length=MAX_PAGE_BYTES + 1),
    "repeated name": reply(200, '{"tags": [], "tags": []}'),
}


@each_api
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_another_body_is_no_list(registry: HostileRegistry, of: Any, api: Api, body: Raw) -> None:
    serve(registry, api, digests(10))
    registry.on("GET", api.path, body)
    listed = read(of(registry, api.source), digests(10))
    assert (listed.digests, listed.page_count, listed.is_lasting) == ({}, 0, True)
    assert listed.problem


@each_api
@pytest.mark.parametrize(
    "entry", [None, "v0000", ["v0000"], {}, {"name": None}, {"tags": None}, {"tags": [None, "v0000", {"name": 7}]}]
)
def test_an_entry_that_cannot_be_read_costs_no_other(
    registry: HostileRegistry, of: Any, api: Api, entry: object
) -> None:
    serve(registry, api, {})
    registry.on("GET", api.path, json_reply(api.page([entry, api.entry("v0001", B)], False)))
    assert read(of(registry, api.source), digests(10)).digests == {"v0001": B}


@each_api
@pytest.mark.parametrize("digest", [None, "", 7, "sha256:" + "A" * 64, "sha256:" + "a" * 63, "latest", {"a": 1}])
def test_a_digest_that_is_none_is_unknown(registry: HostileRegistry, of: Any, api: Api, digest: object) -> None:
    serve(registry, api, {})
    registry.on("GET", api.path, json_reply(api.page([api.entry("v0000", digest), api.entry("v0001", B)], False)))
    assert read(of(registry, api.source), digests(10)).digests == {"v0001": B}


@each_api
def test_a_tag_with_two_digests_has_none_in_whatever_order_they_come(
    registry: HostileRegistry, of: Any, api: Api
) -> None:
    serve(registry, api, {})
    entries = [api.entry("v0000", digest) for digest in (A, B, A, B)]
    registry.on("GET", api.path, json_reply(api.page([*entries, api.entry("v0001", B)], False)))
    assert read(of(registry, api.source), digests(10)).digests == {"v0001": B}


@pytest.mark.parametrize("api", [api for api in APIS if api.source in LINKED], ids=lambda api: api.source.value)
@pytest.mark.parametrize("link", ["http://169.254.169.254/latest", "https://elsewhere.example{path}?last=a", "{own}"])
def test_a_link_elsewhere_or_to_itself_ends_the_list(registry: HostileRegistry, of: Any, api: Api, link: str) -> None:
    known = digests(3)
    serve(registry, api, known)
    where = link.format(path=api.path, own=f"{api.path}?n=1000")
    page = api.page([api.entry(name, digest) for name, digest in known.items()], True)
    registry.on("GET", api.path, json_reply(page, headers=[("Link", f'<{where}>; rel="next"')]))
    listed = read(of(registry, api.source), [*known, TagName("other")])
    assert listed.problem
    assert not listed.is_lasting
    assert len(registry.requests) == 1


def test_a_next_page_of_docker_hub_is_its_number_whatever_address_it_names(registry: HostileRegistry, of: Any) -> None:
    known = digests(250)
    (api,) = (api for api in APIS if api.source is DigestList.DOCKER_HUB)
    serve(registry, api, known)
    assert read(of(registry, api.source), known).digests == known
    assert [parse_qs(request.query)["page"] for request in registry.asked("GET", api.path)] == [["1"], ["2"], ["3"]]


def test_pages_of_docker_hub_that_anonymous_readers_do_not_get_end_the_list_and_are_no_refusal(
    registry: HostileRegistry, of: Any
) -> None:
    known = digests(1200)
    (api,) = (api for api in APIS if api.source is DigestList.DOCKER_HUB)
    serve(registry, api, known)
    honest = registry._answers["GET", api.path][0]

    def limited(request: Request) -> Raw:
        if parse_qs(request.query)["page"] == ["11"]:
            return json_reply({"message": "pagination offset too large for anonymous requests"}, 403)
        assert callable(honest)
        return honest(request)

    registry.on("GET", api.path, limited)
    listed = read(of(registry, api.source), known)
    assert (len(listed.digests), listed.page_count, listed.is_lasting) == (1000, 10, False)
    assert "responds 403" in (listed.problem or "")


# -- credentials --------------------------------------------------------------------------------------------------


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


# -- other hosts --------------------------------------------------------------------------------------------------


def test_another_host_keeps_to_the_rate_and_does_not_slow_the_registry_down(
    registry: HostileRegistry, other_host: HostileRegistry, of: Any, fake_time: FakeTime
) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.DOCKER_HUB)
    known = digests(250)
    serve(other_host, api, known)
    registry.on("HEAD", f"/v2/{NAME}/manifests/v0000", reply(200))
    client = of(registry, api.source, digest_list_url=other_host.base, requests_per_second=2.0)
    client.head_manifest(NAME, TagName("v0000"))
    assert read(client, known).digests == known
    assert fake_time.sleeps == [pytest.approx(0.5)] * 3
    other_host.on("GET", api.path, reply(429, b"", [("Retry-After", "3600")]))
    listed = read(client, known)
    assert (listed.digests, listed.is_lasting) == ({}, False)
    fake_time.sleeps.clear()
    client.head_manifest(NAME, TagName("v0000"))
    client.head_manifest(NAME, TagName("v0000"))
    assert max(fake_time.sleeps) <= 0.5, "the registry has refused nothing"


def test_another_host_that_only_this_machine_reaches_is_refused(registry: HostileRegistry, of: Any) -> None:
    listed = read(of(registry, DigestList.DOCKER_HUB, digest_list_url="http://169.254.169.254"), digests(10))
    assert "169.254.169.254" in (listed.problem or "")
    assert registry.requests == []


# -- caches -------------------------------------------------------------------------------------------------------


def test_a_tag_that_quay_keeps_for_a_time_proves_nothing(registry: HostileRegistry, of: Any) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.QUAY)
    serve(registry, api, {})
    kept = api.entry("v0000", A) | {"expiration": "Mon, 01 Jan 2029 00:00:00 -0000"}
    ended = api.entry("v0001", A) | {"end_ts": 1_900_000_000}
    registry.on("GET", api.path, json_reply(api.page([kept, ended, api.entry("v0002", B)], False)))
    assert read(of(registry, api.source), digests(10)).digests == {"v0002": B}


def test_a_project_of_harbor_that_is_a_cache_proves_nothing(registry: HostileRegistry, of: Any) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.HARBOR)
    known = digests(10)
    serve(registry, api, known)
    registry.on("GET", "/api/v2.0/projects/team", json_reply({"name": "team", "registry_id": 3}))
    listed = read(of(registry, api.source), known)
    assert (listed.digests, listed.is_lasting) == ({}, True)
    assert "cache of another registry" in (listed.problem or "")
    assert registry.asked("GET", api.path) == []


def test_nothing_is_asked_of_a_proxy_that_is_told_a_namespace(registry: HostileRegistry, of: Any) -> None:
    client = of(registry, DigestList.QUAY, namespace="quay.io")
    assert client.list_tag_digests(NAME, frozenset(digests(10)), most_requests=9) is None
    page = {"tags": ["v0000"], "manifest": {A: {"tag": ["v0000"]}}}
    registry.on("GET", f"/v2/{NAME}/tags/list", json_reply(page))
    assert client.list_tags(NAME).digests == {}


def test_the_age_of_what_a_cache_keeps_counts(registry: HostileRegistry, of: Any) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.QUAY)
    page = api.page([api.entry("v0000", A)], False)
    registry.on("GET", api.path, json_reply(page, headers=[("Age", "3600")]))
    listed = read(of(registry, api.source), digests(10))
    age = datetime.now(timezone.utc) - listed.as_of
    assert timedelta(seconds=3600) <= age < timedelta(seconds=3660)
    google = {"tags": ["v0000"], "manifest": {A: {"tag": ["v0000"]}}}
    registry.on("GET", f"/v2/{NAME}/tags/list", json_reply(google, headers=[("Age", "7200")]))
    listing = of(registry, api.source).list_tags(NAME)
    assert listing.digests_at is not None
    assert listing.listed_at - listing.digests_at >= timedelta(seconds=7200 - 60)


@pytest.mark.parametrize("age", ["", "-1", "soon", "1e9", "9" * 30, "²"])
def test_an_age_that_cannot_be_read_is_none(registry: HostileRegistry, of: Any, age: str) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.QUAY)
    page = json.dumps(api.page([api.entry("v0000", A)], False))
    registry.on("GET", api.path, reply(200, page, [("Age", age.encode().decode("latin-1"))]))
    before = datetime.now(timezone.utc)
    assert read(of(registry, api.source), digests(10)).as_of >= before


def test_a_list_that_takes_too_long_is_left_with_what_it_gave(
    registry: HostileRegistry, of: Any, fake_time: FakeTime
) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.QUAY)
    known = digests(250)
    serve(registry, api, known)
    honest = registry._answers["GET", api.path][0]

    def slow(request: Request) -> Raw:
        fake_time.elapsed += MAX_SECONDS - 1
        assert callable(honest)
        return honest(request)

    registry.on("GET", api.path, slow)
    listed = read(of(registry, api.source), known)
    assert (len(listed.digests), listed.is_lasting) == (200, False)
    assert "takes longer" in (listed.problem or "")


# -- which API ----------------------------------------------------------------------------------------------------


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


def test_a_list_of_google_that_may_be_incomplete_is_an_error(registry: HostileRegistry, client_of: Any) -> None:
    registry.on("GET", f"/v2/{NAME}/tags/list", google(600, 1000), google(6000, 10_000))
    with pytest.raises(PaginationError, match=r"lists 10,000 images, the most that it lists"):
        client_of(registry).list_tags(NAME)


def test_a_list_of_google_that_does_not_heed_the_number_is_whole(registry: HostileRegistry, client_of: Any) -> None:
    registry.on("GET", f"/v2/{NAME}/tags/list", google(1200, 1300))
    listing = client_of(registry).list_tags(NAME)
    assert (len(listing.tags), len(listing.digests), len(registry.requests)) == (1200, 1200, 1)
