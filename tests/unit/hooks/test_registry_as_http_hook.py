"""The registry hook as Airflow uses an HttpHook: its connection is tested, and requests are run."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from registry_sync.errors import NotFound, RateLimited
from registry_sync.hooks.registry import RegistryHook
from support.hook_connections import TAGS, guarded, plain, remote_of
from support.hostile_registry import Raw, errors_reply, json_reply, reply
from support.registry import PASSWORD, USERNAME, RegistryServer

# -- test_connection ---------------------------------------------------------------------------------------------


def test_testing_requests_v2_and_says_what_it_found(registry, connect) -> None:
    guarded(registry)
    ok, message = RegistryHook(connect(login="alice", password="correct horse", **plain(registry))).test_connection()
    assert ok, message
    assert "accepts basic authentication as 'alice'" in message
    assert "not encrypted" in message
    assert {(request.method, request.path) for request in registry.requests} == {("GET", "/v2/")}


def test_testing_exchanges_a_token_and_names_the_token_service(registry, connect) -> None:
    header = f'Bearer realm="{registry.base}/token",service="svc"'
    registry.on("GET", "/v2/", errors_reply(401, "X", headers=[("WWW-Authenticate", header)]), json_reply({}))
    registry.on("GET", "/token", json_reply({"token": "bearer-1"}))
    ok, message = RegistryHook(connect(login="alice", password="correct horse", **plain(registry))).test_connection()
    assert ok
    assert f"tokens come from {registry.netloc} for service svc" in message


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (errors_reply(401, "X", headers=[("WWW-Authenticate", "Basic realm=x")]), "rejects the credentials"),
        (reply(404, b"<html>"), "does not respond as a registry"),
    ],
)
def test_testing_fails_with_the_reason(registry, connect, response: Raw, words: str) -> None:
    registry.on("GET", "/v2/", response)
    ok, message = RegistryHook(connect(login="alice", password="correct horse", **plain(registry))).test_connection()
    assert not ok
    assert words in message
    assert "correct horse" not in message


def test_testing_a_proxy_that_serves_repositories_alone(registry, connect) -> None:
    registry.on("GET", TAGS, json_reply({"tags": ["a"]}))
    ok, message = RegistryHook(remote=remote_of(registry)).test_connection()
    assert ok, message
    assert "/v2/ is not served there, so the credentials were not tested" in message
    ok, message = RegistryHook(connect(**plain(registry))).test_connection()
    assert not ok
    assert message.endswith("a sync still works: it requests a repository")


def test_testing_a_connection_without_host_says_so(connect) -> None:
    ok, message = RegistryHook(connect(login="alice")).test_connection()
    assert not ok
    assert "no host" in message


def test_testing_reports_a_clock_that_is_wrong(registry, connect) -> None:
    registry.on("GET", "/v2/", json_reply({}, headers=[("Date", "Mon, 01 Jan 2001 00:00:00 GMT")]))
    ok, message = RegistryHook(connect(**plain(registry))).test_connection()
    assert ok
    assert "behind this one" in message


# -- as an HttpHook ----------------------------------------------------------------------------------------------


def test_run_authenticates_like_the_client(registry, connect) -> None:
    guarded(registry)
    hook = RegistryHook(connect(login="alice", password="correct horse", **plain(registry)))
    response = hook.run(TAGS)
    assert isinstance(response, requests.Response)
    assert response.json() == {"tags": ["a"]}
    hook.close()


def test_run_keeps_what_the_registry_said(registry, connect) -> None:
    hook = RegistryHook(connect(**plain(registry)))
    registry.on("GET", TAGS, errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", "77")]))
    with pytest.raises(RateLimited) as raised:
        hook.run(TAGS)
    assert (raised.value.retry_after_seconds, raised.value.codes) == (77, ("TOOMANYREQUESTS",))
    registry.on("GET", TAGS, errors_reply(404, "NAME_UNKNOWN"))
    with pytest.raises(NotFound):
        hook.run(TAGS)
    hook.close()


def test_run_does_what_its_caller_requests(registry, connect) -> None:
    registry.on("GET", TAGS, errors_reply(404, "NAME_UNKNOWN"))
    registry.on("GET", "/moved", reply(302, headers=[("Location", TAGS)]))
    hook = RegistryHook(connect(**plain(registry)))
    assert hook.run(TAGS, extra_options={"check_response": False}).status_code == 404
    assert hook.run("moved", extra_options={"allow_redirects": False}).status_code == 302
    with pytest.raises(NotFound):
        hook.run("moved")
    hook.close()


def test_run_times_out_by_default(registry, connect) -> None:
    registry.on("GET", TAGS, Raw((30.0,)))
    hook = RegistryHook(connect(**plain(registry, timeout=0.2)))
    with pytest.raises(requests.ReadTimeout):
        hook.run(TAGS)
    hook.close()


def test_a3_07_a_session_takes_nothing_from_the_environment(
    registry, connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password stolen\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    registry.on("GET", TAGS, json_reply({"tags": []}, headers=[("Set-Cookie", "a=b")]))
    hook = RegistryHook(connect(**plain(registry)))
    for _ in range(2):
        hook.run(TAGS)
    hook.close()
    assert {request.header("authorization") for request in registry.requests} == {None}
    assert {request.header("cookie") for request in registry.requests} == {None}


def test_a_real_registry_with_a_password(tmp_path: Path, connect) -> None:
    with RegistryServer(tmp_path / "registry", basic_auth=True) as server:
        fields = {"host": "127.0.0.1", "port": server.port, "schema": "http"}
        extra = {"allow_insecure_credentials": True}
        ok, message = RegistryHook(connect(login=USERNAME, password=PASSWORD, extra=extra, **fields)).test_connection()
        assert ok, message
        ok, message = RegistryHook(connect(login=USERNAME, password="wrong", extra=extra, **fields)).test_connection()
        assert not ok
        ok, message = RegistryHook(connect(login=USERNAME, password=PASSWORD, **fields)).test_connection()
        assert not ok
        assert "allow_insecure_credentials" in message
