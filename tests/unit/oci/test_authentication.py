"""Each challenge of a registry is followed once, with the right credentials, sent to the right host."""

from __future__ import annotations

import base64
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import (
    AuthenticationFailed,
    ChallengeInvalid,
    ProtocolError,
    RealmRefused,
    RepositoryUnavailable,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support.guarded import BASIC, TAG_LIST, TAGS, USER, challenge, guarded
from support.hostile_registry import Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime


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
    def response(request: Request) -> Raw:
        if request.header("authorization") == "Bearer good":
            return TAG_LIST
        return challenge(f'Negotiate, Basic realm="x", Bearer realm="{registry.base}/token"')

    registry.on("GET", TAGS, response)
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


def test_a2_06_a_bearer_challenge_without_realm_is_skipped(registry, client_of) -> None:
    registry.on("GET", TAGS, challenge('Bearer service="s", Basic realm="x"'), TAG_LIST)
    client_of(registry, USER).list_tags(REPOSITORY)
    assert registry.asked(path=TAGS)[1].header("authorization") == BASIC


def test_a2_06_basic_requires_a_password(registry, client_of) -> None:
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
    def response(request: Request) -> Raw:
        if request.header("authorization") == BASIC:
            return TAG_LIST
        return challenge(f'Bearer realm="{registry.base}/token", Basic realm="x"')

    registry.on("GET", TAGS, response)
    registry.on("GET", "/token", reply(status))
    client = client_of(registry, USER)
    for _ in range(3):
        assert client.list_tags(REPOSITORY).tags == ("a",)
    assert len(registry.asked(path="/token")) == 1


def test_a2_06_a_token_service_that_fails_is_ignored_where_basic_is_taken(registry, client_of) -> None:
    def response(request: Request) -> Raw:
        if request.header("authorization") == BASIC:
            return TAG_LIST
        return challenge(f'Bearer realm="{registry.base}/token", Basic realm="x"')

    registry.on("GET", TAGS, response)
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


def test_a3_06_a_password_is_not_sent_over_plain_http_unrequested(registry, client_of) -> None:
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


def test_a3_09_every_secret_is_reported_before_it_is_sent(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    reported: list[str] = []
    told_when_asked: list[list[str]] = []

    def response(_request: Request) -> Raw:
        told_when_asked.append(list(reported))
        return json_reply({"token": "good"})

    registry.on("GET", "/token", response)
    client_of(registry, USER, on_secret=reported.append).list_tags(REPOSITORY)
    assert "correct horse" in told_when_asked[0]
    assert reported[-1] == "good"


def test_a3_09_the_most_talkative_log_reports_no_secret(
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
    reported = caplog.text
    assert [word for word in ("hidden", "good-token", "correct horse", BASIC) if word in reported] == []


def test_a3_09_representations_show_no_secret() -> None:
    credentials = Credentials("alice", "password-1", "token-2", "token-3")
    assert "alice" in repr(credentials)
    assert not any(secret in repr(credentials) for secret in ("password-1", "token-2", "token-3"))


def test_requests_of_a_session_are_authenticated_like_the_clients_own(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    response = client_of(registry).session().get(f"{registry.base}{TAGS}", timeout=5)
    assert (response.status_code, response.json()["tags"]) == (200, ["a"])
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
