"""Challenges of a registry are answered once, with the right thing, to the right host."""

from __future__ import annotations

import base64
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from registry_sync.domain.references import RegistryUrl, RepositoryName
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    ChallengeInvalid,
    LimitExceeded,
    ProtocolError,
    RateLimited,
    RealmRefused,
    RegistryError,
    RepositoryUnavailable,
)
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.credentials import Credentials
from registry_sync.oci.options import ClientOptions
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime

TAGS = f"/v2/{REPOSITORY}/tags/list"
USER = Credentials("alice", "correct horse")
BASIC = "Basic " + base64.b64encode(b"alice:correct horse").decode()
TAG_LIST = json_reply({"name": REPOSITORY, "tags": ["a"]})


def challenge(header: str, status: int = 401) -> Raw:
    return errors_reply(status, "UNAUTHORIZED", "authentication required", [("WWW-Authenticate", header)])


def guarded(
    registry: HostileRegistry, realm: str, *, accepted: str = "good", path: str = TAGS, scope: str = ""
) -> None:
    """Lets ``path`` be read with the bearer token ``accepted`` only."""

    def answer(request: Request) -> Raw:
        if request.header("authorization") == f"Bearer {accepted}":
            return TAG_LIST
        return challenge(f'Bearer realm="{realm}",service="demo registry",scope="{scope}"')

    registry.on("GET", path, answer)


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
    with pytest.raises(RepositoryUnavailable, match="needs credentials or does not exist"):
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
def test_a4_02_a_token_service_without_post_is_asked_by_get(registry, client_of, status: int) -> None:
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


def test_a4_05_an_answer_of_more_than_128_kib_is_not_read(registry, client_of) -> None:
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


def test_a4_09_a_token_service_at_the_registry_itself_needs_no_second_connection(registry, client_of) -> None:
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

    def answer(request: Request) -> Raw:
        good = request.header("authorization") == f"Bearer {valid['token']}"
        return TAG_LIST if good else challenge(f'Bearer realm="{registry.base}/token",service="s"')

    registry.on("GET", TAGS, answer)
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
def test_a4_12_a_registry_that_never_accepts_its_token_is_asked_twice(
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


def test_a4_14_a_token_service_that_is_busy_is_asked_again_within_one_budget(
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

    def answer(request: Request) -> Raw:
        fresh = "Basic " + base64.b64encode(b"AWS:new").decode()
        return TAG_LIST if request.header("authorization") == fresh else challenge('Basic realm="x"')

    registry.on("GET", TAGS, answer)
    client = client_of(registry, lambda: Credentials("AWS", passwords["now"]))
    with pytest.raises(AuthenticationFailed):
        client.list_tags(REPOSITORY)
    passwords["now"] = "new"
    assert client.list_tags(REPOSITORY).tags == ("a",)


def test_a2_03_a_401_without_challenge_uses_that_of_the_ping_once(registry, client_of) -> None:
    registry.on("GET", "/v2/", challenge(f'Bearer realm="{registry.base}/token",service="s"'))
    registry.on("GET", "/token", json_reply({"token": "good"}))
    registry.on("GET", TAGS, errors_reply(401, "UNAUTHORIZED"), TAG_LIST)
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)
    assert len(registry.asked(path="/v2/")) == 1


def test_a2_03_a_401_without_any_challenge_is_an_error(registry, client_of) -> None:
    registry.on("GET", "/v2/", reply(200))
    registry.on("GET", TAGS, errors_reply(401, "UNAUTHORIZED"))
    with pytest.raises(ChallengeInvalid, match="does not say how"):
        client_of(registry).list_tags(REPOSITORY)


def test_a2_06_bearer_is_taken_although_basic_comes_first(registry, client_of) -> None:
    def answer(request: Request) -> Raw:
        if request.header("authorization") == "Bearer good":
            return TAG_LIST
        return challenge(f'Negotiate, Basic realm="x", Bearer realm="{registry.base}/token"')

    registry.on("GET", TAGS, answer)
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client_of(registry, USER).list_tags(REPOSITORY)
    assert [request.header("authorization") for request in registry.asked(path=TAGS)] == [None, "Bearer good"]


def test_a2_04_challenges_in_several_header_lines_are_all_read(registry, client_of) -> None:
    lines = [("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", 'Basic realm="a, b"')]
    bearer = ("www-authenticate", f'BEARER Realm = "{registry.base}/token?a=b",SCOPE=""')
    registry.on("GET", TAGS, errors_reply(401, "UNAUTHORIZED", headers=[*lines, bearer]), TAG_LIST)
    registry.on("GET", "/token", json_reply({"token": "good"}))
    assert client_of(registry, USER).list_tags(REPOSITORY).tags == ("a",)
    assert registry.asked(path=TAGS)[1].header("authorization") == "Bearer good"


def test_a2_07_a_header_bomb_is_an_error(registry, client_of) -> None:
    lines = [("WWW-Authenticate", f'S{number} realm="{"x" * 500}"') for number in range(60)]
    registry.on("GET", TAGS, errors_reply(401, "UNAUTHORIZED", headers=lines))
    with pytest.raises(ProtocolError, match="longer than"):
        client_of(registry, USER).list_tags(REPOSITORY)


def test_a9_03_docker_hub_hides_what_may_not_be_read_and_does_not_say_that_it_is_missing(
    registry, client_of, fake_time: FakeTime
) -> None:
    """Asked through a proxy, so that a name of the public registry leads to the scripted one."""
    hub = "http://registry-1.docker.io"
    refusal = 'Bearer realm="http://auth.docker.io/token",service="registry.docker.io",error="insufficient_scope"'
    registry.on("GET", f"{hub}{TAGS}", challenge(refusal))
    registry.on("GET", "http://auth.docker.io/token", json_reply({"token": "good"}))
    options = ClientOptions(proxy_url=registry.base, allow_insecure_credentials=True, max_attempts=1)
    with (
        RegistryClient(RegistryUrl.parse(hub), USER, options, clock=fake_time.clock) as client,
        pytest.raises(RepositoryUnavailable, match="does not exist there, it is private, or the credentials"),
    ):
        client.list_tags(REPOSITORY)
    sent = {request.path: request.header("authorization") for request in registry.requests}
    assert sent == {f"{hub}{TAGS}": "Bearer good", "http://auth.docker.io/token": BASIC}


def test_a2_06_a_bearer_challenge_without_realm_is_passed_over(registry, client_of) -> None:
    registry.on("GET", TAGS, challenge('Bearer service="s", Basic realm="x"'), TAG_LIST)
    client_of(registry, USER).list_tags(REPOSITORY)
    assert registry.asked(path=TAGS)[1].header("authorization") == BASIC


def test_a2_06_basic_needs_a_password(registry, client_of) -> None:
    registry.on("GET", TAGS, challenge('Basic realm="x"'))
    with pytest.raises(RepositoryUnavailable):
        client_of(registry).list_tags(REPOSITORY)
    assert len(registry.asked(path=TAGS)) == 1


def test_a2_06_other_schemes_are_not_spoken(registry, client_of) -> None:
    registry.on("GET", TAGS, challenge('Negotiate, Digest realm="x", nonce="y"'))
    with pytest.raises(ChallengeInvalid, match="negotiate, digest"):
        client_of(registry, USER).list_tags(REPOSITORY)


@pytest.mark.parametrize("status", [404, 501])
def test_a2_06_basic_is_tried_once_when_the_token_service_is_missing(registry, client_of, status: int) -> None:
    def answer(request: Request) -> Raw:
        if request.header("authorization") == BASIC:
            return TAG_LIST
        return challenge(f'Bearer realm="{registry.base}/token", Basic realm="x"')

    registry.on("GET", TAGS, answer)
    registry.on("GET", "/token", reply(status))
    client = client_of(registry, USER)
    for _ in range(3):
        assert client.list_tags(REPOSITORY).tags == ("a",)
    assert len(registry.asked(path="/token")) == 1


def test_a2_06_a_token_service_that_fails_is_left_alone_where_basic_is_taken(registry, client_of) -> None:
    def answer(request: Request) -> Raw:
        if request.header("authorization") == BASIC:
            return TAG_LIST
        return challenge(f'Bearer realm="{registry.base}/token", Basic realm="x"')

    registry.on("GET", TAGS, answer)
    registry.on("GET", "/token", reply(503))
    client = client_of(registry, USER)
    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(lambda _: client.list_tags(REPOSITORY), range(40)))) == 40
    assert len(registry.asked(path="/token")) <= 8


def test_a3_02_a_password_is_not_sent_where_the_registry_says(registry, other_host, client_of) -> None:
    guarded(registry, f"{other_host.base}/token")
    with pytest.raises(RealmRefused, match="trusted_realm_hosts"):
        client_of(registry, USER).list_tags(REPOSITORY)
    assert other_host.requests == []


def test_a3_02_a_trusted_token_service_gets_the_password_and_nobody_else(registry, other_host, client_of) -> None:
    guarded(registry, f"{other_host.base}/token")
    other_host.on("GET", "/token", json_reply({"token": "good"}))
    client_of(registry, USER, trusted_realm_hosts=frozenset({other_host.netloc})).list_tags(REPOSITORY)
    assert [request.header("authorization") for request in other_host.requests] == [BASIC]
    assert BASIC not in [request.header("authorization") for request in registry.requests]


def test_a3_05_a_token_request_with_a_password_follows_no_redirect(registry, other_host, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", reply(302, headers=[("Location", f"{other_host.base}/steal")]))
    with pytest.raises(RealmRefused, match="redirects"):
        client_of(registry, USER).list_tags(REPOSITORY)
    assert other_host.requests == []


def test_a3_05_an_anonymous_token_request_follows_three_redirects(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    hops = [reply(307, headers=[("Location", "/token?hop")])] * 3
    registry.on("GET", "/token", *hops, json_reply({"token": "good"}))
    assert client_of(registry).list_tags(REPOSITORY).tags == ("a",)
    registry.on("GET", "/token", hops[0])
    with pytest.raises(RealmRefused, match="too often"):
        client_of(registry).list_tags(REPOSITORY)


@pytest.mark.parametrize("location", ["http://169.254.169.254/x", "http://2852039166/x", "ftp://x/", "https://[::1"])
def test_a3_05_each_redirect_of_an_anonymous_token_request_is_judged(registry, client_of, location: str) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", reply(307, headers=[("Location", location)]))
    with pytest.raises(RealmRefused):
        client_of(registry).list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 1


def test_a3_04_a_token_request_does_not_go_to_a_metadata_service(registry, client_of) -> None:
    guarded(registry, "http://169.254.169.254/latest/meta-data")
    with pytest.raises(RealmRefused, match=r"169\.254\.169\.254"):
        client_of(registry).list_tags(REPOSITORY)


def test_a3_06_a_password_is_not_sent_over_plain_http_unasked(registry, client_of) -> None:
    registry.on("GET", TAGS, challenge('Basic realm="x"'))
    with pytest.raises(RealmRefused, match="plain http"):
        client_of(registry, USER, allow_insecure_credentials=False).list_tags(REPOSITORY)
    assert [request.header("authorization") for request in registry.requests] == [None]


def test_a3_07_nothing_is_taken_from_netrc_or_the_environment(
    registry, client_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password stolen\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    session = client.session()
    assert session.get(f"{registry.base}{TAGS}").json()["tags"] == ["a"]
    sent = {request.header("authorization") for request in registry.requests}
    assert sent == {None, "Bearer good"}


def test_a3_08_two_clients_share_no_token(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client_of(registry, USER).list_tags(REPOSITORY)
    client_of(registry).list_tags(REPOSITORY)
    assert [request.header("authorization") for request in registry.asked(path="/token")] == [BASIC, None]
    assert [request.header("authorization") for request in registry.asked(path=TAGS)] == [
        None,
        "Bearer good",
        None,
        "Bearer good",
    ]


def test_a3_09_every_secret_is_told_before_it_is_sent(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    told: list[str] = []
    told_when_asked: list[list[str]] = []

    def answer(_request: Request) -> Raw:
        told_when_asked.append(list(told))
        return json_reply({"token": "good"})

    registry.on("GET", "/token", answer)
    client_of(registry, USER, on_secret=told.append).list_tags(REPOSITORY)
    assert "correct horse" in told_when_asked[0]
    assert told[-1] == "good"


def test_a3_09_the_most_talkative_log_tells_no_secret(
    registry, other_host, client_of, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guarded(registry, f"{registry.base}/token?tenant=hidden-tenant")
    registry.on("GET", "/token", json_reply({"token": "good-token"}))
    moved = reply(307, headers=[("Location", f"{other_host.base}/x?sig=hidden-signature"), ("Set-Cookie", "a=hidden")])
    registry.on(
        "GET",
        TAGS,
        lambda request: (
            moved
            if request.header("authorization")
            else challenge(f'Bearer realm="{registry.base}/token?tenant=hidden-tenant"')
        ),
    )
    other_host.on("GET", "/x", TAG_LIST)
    client_of(registry, USER).list_tags(REPOSITORY)
    assert f"GET {TAGS}" in caplog.text
    told = caplog.text
    assert [word for word in ("hidden", "good-token", "correct horse", BASIC) if word in told] == []


def test_a3_09_representations_show_no_secret() -> None:
    credentials = Credentials("alice", "password-1", "token-2", "token-3")
    assert "alice" in repr(credentials)
    assert not any(secret in repr(credentials) for secret in ("password-1", "token-2", "token-3"))


def test_requests_of_a_session_are_authenticated_like_the_clients_own(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    answer = client_of(registry).session().get(f"{registry.base}{TAGS}", timeout=5)
    assert (answer.status_code, answer.json()["tags"]) == (200, ["a"])
    assert parse_qs(registry.asked(path="/token")[0].query)["scope"] == [f"repository:{REPOSITORY}:pull"]


def test_a_session_takes_no_token_to_another_host(registry, other_host, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    registry.on("GET", "/moved", reply(302, headers=[("Location", f"{other_host.base}/there")]))
    other_host.on("GET", "/there", json_reply({}))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    client.session().get(f"{registry.base}/moved", timeout=5)
    assert [request.header("authorization") for request in other_host.requests] == [None]


def test_credentials_are_no_state_of_a_class_that_threads_could_mix(registry, client_of) -> None:
    """Two clients at once, each with its own user, send only their own user's name."""
    registry.on(
        "GET", TAGS, lambda request: TAG_LIST if request.header("authorization") else challenge("Basic realm=x")
    )
    clients = {name: client_of(registry, Credentials(name, "secret")) for name in ("ann", "bob")}
    barrier = threading.Barrier(2)

    def work(name: str) -> None:
        barrier.wait()
        for _ in range(10):
            clients[name].list_tags(REPOSITORY)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, clients))
    names = [
        base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")[0]
        for request in registry.requests
        if (value := request.header("authorization"))
    ]
    assert (names.count("ann"), names.count("bob")) == (10, 10)


def test_tokens_of_an_error_are_not_pickled_along(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token?secret=query")
    registry.on("GET", "/token", errors_reply(401, "UNAUTHORIZED"))
    with pytest.raises(AuthenticationFailed) as raised:
        client_of(registry, USER).list_tags(REPOSITORY)
    shown = json.dumps({**raised.value.__dict__, "codes": list(raised.value.codes)})
    assert "query" not in shown
    assert "correct horse" not in shown
