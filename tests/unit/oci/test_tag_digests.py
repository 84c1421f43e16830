"""The lists of the digests of all tags: how they are read, what their pages mean, and how old they may be."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import pytest

from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.references import TagName
from registry_sync.oci.tag_digests import MAX_PAGE_BYTES, MAX_SECONDS
from support.digest_list_apis import (
    APIS,
    LINKED,
    NAME,
    PAGED,
    USER,
    A,
    Api,
    B,
    digests,
    each_api,
    read,
    serve,
)
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import FakeTime

pytestmark = pytest.mark.rule("A7.13")


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
