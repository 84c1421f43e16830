"""The response at ``/v2/``, and whether it is that of a registry."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import AccessDenied, AuthenticationFailed, NotARegistry, RegistryError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import Ping
from support.hostile_registry import Raw, errors_reply, json_reply, reply

USER = Credentials("alice", "correct horse")


def challenged(header: str) -> Raw:
    return errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", header)])


def test_a2_01_an_open_registry(registry, client_of) -> None:
    registry.on("GET", "/v2/", json_reply({}, headers=[("Docker-Distribution-API-Version", "registry/2.0")]))
    assert client_of(registry).ping() == Ping("none", api_version="registry/2.0")
    assert registry.requests[0].target == "/v2/"


def test_a2_02_the_version_header_is_not_required(registry, client_of) -> None:
    registry.on("GET", "/v2/", reply(200, b"", content_type=None))
    assert client_of(registry).ping() == Ping("none")


def test_a2_01_a_registry_with_tokens_gets_one(registry, client_of) -> None:
    registry.on("GET", "/v2/", challenged(f'Bearer realm="{registry.base}/token",service="svc"'), json_reply({}))
    registry.on("GET", "/token", json_reply({"token": "good"}))
    found = client_of(registry, USER).ping()
    assert found == Ping("bearer", realm_host=registry.netloc, service="svc", is_authenticated=True)


def test_a2_01_a_registry_with_passwords_gets_one(registry, client_of) -> None:
    registry.on("GET", "/v2/", challenged("Basic realm=x"), json_reply({}))
    assert client_of(registry, USER).ping() == Ping("basic", is_authenticated=True)


def test_an_anonymous_reader_learns_what_would_be_requested(registry, client_of) -> None:
    registry.on("GET", "/v2/", challenged("Basic realm=x"))
    assert client_of(registry).ping() == Ping("basic")


def test_wrong_credentials_are_reported(registry, client_of) -> None:
    registry.on("GET", "/v2/", challenged("Basic realm=x"))
    with pytest.raises(AuthenticationFailed):
        client_of(registry, USER).ping()


@pytest.mark.parametrize(
    "response",
    [
        reply(404, b"<html>", content_type="text/html"),
        reply(200, b"<!DOCTYPE html>", content_type="text/html"),
        reply(200, b" <html>", content_type=None),
        reply(400),
        reply(410),
        reply(201),
    ],
)
def test_a2_01_anything_else_is_no_registry(registry, client_of, response: Raw) -> None:
    registry.on("GET", "/v2/", response)
    with pytest.raises(NotARegistry):
        client_of(registry).ping()


def test_a2_01_a_registrys_error_in_place_of_v2_is_of_a_registry(registry, client_of) -> None:
    registry.on("GET", "/v2/", errors_reply(404, "NAME_UNKNOWN"))
    assert client_of(registry).ping() == Ping("none", is_served=False)
    registry.on("GET", "/v2/", errors_reply(404, "NOT_FOUND"))
    with pytest.raises(NotARegistry):
        client_of(registry).ping()


def test_a2_01_a_list_of_tags_speaks_for_a_registry_whose_v2_is_missing(registry, client_of) -> None:
    name = RepositoryName("team/app")
    registry.on("GET", "/v2/", reply(404, b"<html>", content_type="text/html"))
    with pytest.raises(NotARegistry):
        client_of(registry).ping(name)
    registry.on("GET", f"/v2/{name}/tags/list", json_reply({"tags": []}))
    assert client_of(registry).ping(name) == Ping("none", is_served=False)


def test_a2_01_a_login_page_is_no_registry(registry, client_of) -> None:
    registry.on("GET", "/v2/", reply(302, headers=[("Location", "/login")]))
    registry.on("GET", "/login", reply(200, b"<html>", content_type="text/html"))
    with pytest.raises(NotARegistry, match="web page"):
        client_of(registry).ping()


def test_a_refusal_stays_a_refusal(registry, client_of) -> None:
    registry.on("GET", "/v2/", errors_reply(403, "DENIED"))
    with pytest.raises(AccessDenied):
        client_of(registry, USER).ping()
    registry.on("GET", "/v2/", reply(503))
    with pytest.raises(RegistryError) as raised:
        client_of(registry).ping()
    assert raised.value.is_temporary


def test_the_registrys_clock_is_compared(registry, client_of) -> None:
    import time

    registry.on("GET", "/v2/", json_reply({}, headers=[("Date", formatdate(time.time() + 600, usegmt=True))]))
    offset = client_of(registry).ping().clock_offset_seconds
    assert offset is not None
    assert 590 < offset < 610
