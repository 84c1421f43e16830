"""Tokens of token services: the requests, the possible responses, the retries."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    LimitExceeded,
    ProtocolError,
    RateLimited,
    RegistryError,
    RepositoryUnavailable,
)
from registry_sync.oci.auth.credentials import Credentials
from support.guarded import BASIC, TAG_LIST, TAGS, USER, challenge, guarded
from support.hostile_registry import Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime


def test_a4_01_the_get_dialect_sends_service_scope_client_and_account(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token?tenant=1", scope=f"repository:{REPOSITORY}:pull")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    assert client_of(registry, USER).list_tags(REPOSITORY).tags == ("a",)
    (asked,) = registry.asked("GET", "/token")
    assert asked.header("authorization") == BASIC
    assert asked.target.startswith("/token?tenant=1&service=demo+registry&")
    assert parse_qs(asked.query) == {
        "tenant": ["1"],
        "service": ["demo registry"],
        "scope": [f"repository:{REPOSITORY}:pull"],
        "client_id": ["registry-sync"],
        "account": ["alice"],
    }


def test_a4_16_anonymous_readers_exchange_without_a_password(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"access_token": "good"}))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)
    (asked,) = registry.asked("GET", "/token")
    assert asked.header("authorization") is None
    assert "account" not in parse_qs(asked.query)


def test_a4_16_an_anonymous_401_of_the_token_service_says_that_credentials_may_be_missing(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", errors_reply(401, "UNAUTHORIZED"))
    with pytest.raises(RepositoryUnavailable, match="requires credentials or does not exist"):
        client_of(registry).list_tags(REPOSITORY)


def test_a4_02_an_identity_token_is_posted_as_a_form_and_never_as_basic(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("POST", "/token", json_reply({"access_token": "good", "refresh_token": "next one"}))
    client_of(registry, Credentials(identity_token="id-token")).list_tags(REPOSITORY)
    (asked,) = registry.asked("POST", "/token")
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["id-token"],
        "service": ["demo registry"],
        "client_id": ["registry-sync"],
        "scope": [f"repository:{REPOSITORY}:pull"],
    }
    assert asked.header("authorization") is None
    assert all("id-token" not in str(request.headers) for request in registry.asked("GET"))


@pytest.mark.parametrize("status", [404, 405])
def test_a4_02_a_token_service_without_post_is_requested_by_get(registry, client_of, status: int) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("POST", "/token", reply(status))
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client_of(registry, Credentials("alice", identity_token="id-token")).list_tags(REPOSITORY)
    (asked,) = registry.asked("GET", "/token")
    assert asked.header("authorization") == "Basic " + base64.b64encode(b"alice:id-token").decode()


def test_a4_03_a_ready_made_token_is_used_as_it_is(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token", accepted="ready")
    client_of(registry, Credentials(registry_token="ready")).list_tags(REPOSITORY)
    assert [request.path for request in registry.asked()] == [TAGS]


def test_a4_03_a_ready_made_token_that_is_rejected_is_not_exchanged(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token", accepted="another")
    with pytest.raises(AuthenticationFailed):
        client_of(registry, Credentials(registry_token="ready")).list_tags(REPOSITORY)
    assert registry.asked(path="/token") == []


@pytest.mark.parametrize(
    "document",
    [
        {"token": None},
        {"token": ""},
        {"token": ["a"]},
        {"token": 7},
        {},
        {"token": "a b"},
        {"token": "a\r\nX-Evil: 1"},
        {"token": "\u00e4"},
        [],
        "text",
    ],
)
def test_a4_04_a_token_that_is_no_printable_text_is_refused(registry, client_of, document: object) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply(document))
    with pytest.raises(ProtocolError):
        client_of(registry).list_tags(REPOSITORY)


@pytest.mark.parametrize(
    "document",
    [{"token": None, "access_token": "good"}, {"token": "", "access_token": "good"}, {"access_token": "good"}],
)
def test_a4_04_a_token_may_have_either_name(registry, client_of, document: object) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply(document))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)


def test_a4_05_a_response_of_more_than_128_kib_is_not_read(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "x" * 200_000}))
    with pytest.raises(LimitExceeded):
        client_of(registry).list_tags(REPOSITORY)


def test_a4_07_a_token_is_kept_until_shortly_before_its_end_by_the_local_clock(
    registry, client_of, fake_time: FakeTime
) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good", "expires_in": 300, "issued_at": "2001-01-01T00:00:00Z"}))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    fake_time.elapsed += 260
    client.list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 1
    fake_time.elapsed += 15
    client.list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 2


def test_a4_08_each_repository_has_a_token_of_its_own_and_no_second_401(registry, client_of) -> None:
    other = RepositoryName("library/other")
    guarded(registry, f"{registry.base}/token")
    guarded(registry, f"{registry.base}/token", path=f"/v2/{other}/tags/list")
    registry.on("GET", "/token", json_reply({"token": "good", "expires_in": 300}))
    client = client_of(registry)
    for repository in (REPOSITORY, other, REPOSITORY, other):
        client.list_tags(repository)
    assert [parse_qs(asked.query)["scope"] for asked in registry.asked(path="/token")] == [
        [f"repository:{REPOSITORY}:pull"],
        [f"repository:{other}:pull"],
    ]
    assert len(registry.asked(path=f"/v2/{other}/tags/list")) == 2


def test_a4_09_twenty_threads_share_one_exchange(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", lambda _request: Raw((0.2, *json_reply({"token": "good"}).pieces)))
    client = client_of(registry)
    with ThreadPoolExecutor(20) as threads:
        assert len(list(threads.map(lambda _: client.list_tags(REPOSITORY), range(20)))) == 20
    assert len(registry.asked(path="/token")) == 1


def test_a4_09_a_token_service_at_the_registry_itself_requires_no_second_connection(registry, client_of) -> None:
    """A thread that waits for a token holds no connection, or all of them together would wait for ever."""
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client = client_of(registry, concurrency=1)
    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(lambda _: client.list_tags(REPOSITORY), range(8)))) == 8
    assert client.session().get(f"{registry.base}{TAGS}", timeout=5).status_code == 200
    assert registry.connection_count == 1


def test_a4_12_a_token_revoked_early_is_replaced_once(registry, client_of) -> None:
    tokens = iter(["first", "second"])
    valid = {"token": "first"}
    registry.on("GET", "/token", lambda _request: json_reply({"token": next(tokens)}))

    def response(request: Request) -> Raw:
        good = request.header("authorization") == f"Bearer {valid['token']}"
        return TAG_LIST if good else challenge(f'Bearer realm="{registry.base}/token",service="s"')

    registry.on("GET", TAGS, response)
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    valid["token"] = "second"
    client.list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 2


@pytest.mark.parametrize(
    ("credentials", "suffix", "error"),
    [
        (USER, ',error="insufficient_scope"', AccessDenied),
        (USER, "", AuthenticationFailed),
        (None, ',error="insufficient_scope"', RepositoryUnavailable),
        (None, "", RepositoryUnavailable),
    ],
)
def test_a4_12_a_registry_that_never_accepts_its_token_is_requested_twice(
    registry, client_of, credentials: Credentials | None, suffix: str, error: type[RegistryError]
) -> None:
    registry.on("GET", TAGS, challenge(f'Bearer realm="{registry.base}/token",service="s"{suffix}'))
    registry.on("GET", "/token", json_reply({"token": "good"}))
    with pytest.raises(error) as raised:
        client_of(registry, credentials).list_tags(REPOSITORY)
    assert type(raised.value) is error
    assert len(registry.asked(path=TAGS)) == 2
    assert len(registry.asked(path="/token")) == 1


def test_a4_13_rejected_credentials_are_never_tried_again(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", errors_reply(401, "UNAUTHORIZED", "bad password 'correct horse'"))
    with pytest.raises(AuthenticationFailed) as raised:
        client_of(registry, USER).list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 1
    assert not raised.value.is_temporary
    assert "correct horse" not in str(raised.value)


@pytest.mark.parametrize("credentials", [USER, None])
def test_a4_13_twenty_threads_are_rejected_once(registry, client_of, credentials: Credentials | None) -> None:
    """Twenty bad logins at once would lock an account."""
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", lambda _request: Raw((0.2, *errors_reply(401, "UNAUTHORIZED").pieces)))
    client = client_of(registry, credentials)

    def refused(_number: int) -> bool:
        with pytest.raises((AuthenticationFailed, RepositoryUnavailable)):
            client.list_tags(REPOSITORY)
        return True

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(refused, range(20)))
    assert len(registry.asked(path="/token")) == 1


def test_a4_14_a_token_service_that_is_busy_is_requested_again_within_one_budget(
    registry, client_of, fake_time: FakeTime
) -> None:
    guarded(registry, f"{registry.base}/token")
    busy = reply(429, headers=[("Retry-After", "7")])
    registry.on("GET", "/token", busy, reply(503), json_reply({"token": "good"}))
    client_of(registry).list_tags(REPOSITORY)
    assert fake_time.sleeps[0] == 7
    registry.on("GET", "/token", busy)
    with pytest.raises(RateLimited):
        client_of(registry, max_attempts=3).list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 3 + 3


def test_a4_15_a_new_refresh_token_replaces_the_old_in_memory(registry, client_of, fake_time: FakeTime) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("POST", "/token", json_reply({"access_token": "good", "refresh_token": "renewed"}))
    client = client_of(registry, Credentials(identity_token="id-token"))
    client.list_tags(REPOSITORY)
    fake_time.elapsed += 100
    client.list_tags(REPOSITORY)
    sent = [parse_qs(asked.body.decode())["refresh_token"] for asked in registry.asked("POST", "/token")]
    assert sent == [["id-token"], ["renewed"]]


def test_a4_17_credentials_made_anew_are_used_after_a_401(registry, client_of) -> None:
    passwords = {"now": "old"}

    def response(request: Request) -> Raw:
        fresh = "Basic " + base64.b64encode(b"AWS:new").decode()
        return TAG_LIST if request.header("authorization") == fresh else challenge('Basic realm="x"')

    registry.on("GET", TAGS, response)
    client = client_of(registry, lambda: Credentials("AWS", passwords["now"]))
    with pytest.raises(AuthenticationFailed):
        client.list_tags(REPOSITORY)
    passwords["now"] = "new"
    assert client.list_tags(REPOSITORY).tags == ("a",)
