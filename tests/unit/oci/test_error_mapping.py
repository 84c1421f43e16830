"""An error keeps what the registry said: its status, three codes, one line; and nothing it should not say."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.errors import (
    AccessDenied,
    NotFound,
    ProtocolError,
    RegistryError,
    RepositoryUnavailable,
    ServerUnavailable,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.error_mapping import MAX_MESSAGE_LENGTH, RequestContext, parse_error_body, printable
from support.hostile_registry import Raw, errors_reply, reply
from support.oci import REPOSITORY

TAGS = f"/v2/{REPOSITORY}/tags/list"
READY = Credentials(registry_token="ready-token")


def raised_by(registry, client_of, response: Raw, **options: object) -> RegistryError:  # type: ignore[no-untyped-def]
    registry.on("GET", TAGS, response)
    with pytest.raises(RegistryError) as raised:
        client_of(registry, READY, max_attempts=1, **options).list_tags(REPOSITORY)
    return raised.value


@pytest.mark.parametrize(
    ("body", "codes", "message"),
    [
        ({"errors": [{"code": "DENIED", "message": "no"}]}, ("DENIED",), "no"),
        ({"errors": [{"code": f"C{n}", "message": f"m{n}"} for n in range(5)]}, ("C0", "C1", "C2"), "m0; m1; m2"),
        ({"errors": [{"code": "UNKNOWN", "message": None}]}, ("UNKNOWN",), ""),
        ({"errors": [{"code": 7, "message": ["x"]}, "text", None]}, (), ""),
        ({"errors": [{"code": "BAD CODE\n"}]}, (), ""),
        ({"errors": "text"}, (), '{"errors": "text"}'),
        ({"details": "x"}, (), '{"details": "x"}'),
    ],
)
def test_a9_01_codes_and_messages_are_taken_where_they_are_well_formed(
    body: object, codes: tuple[str, ...], message: str
) -> None:
    assert parse_error_body(json.dumps(body).encode()) == (codes, message)


def test_a9_01_a_code_without_message_is_reported(registry, client_of) -> None:
    assert "(DENIED)" in str(raised_by(registry, client_of, errors_reply(403, "DENIED")))
    assert "(DENIED)" not in str(raised_by(registry, client_of, errors_reply(403, "DENIED", "said in words")))


@pytest.mark.parametrize(
    ("request_context", "text"),
    [
        (RequestContext("manifest", "a/b", "latest"), "manifest latest of a/b"),
        (RequestContext("blob", subject="sha256:00"), "blob sha256:00"),
        (RequestContext("repository", "a/b"), "repository a/b"),
        (RequestContext("repository", "a/b", "a/b"), "repository a/b"),
        (RequestContext("registry"), "registry"),
    ],
)
def test_what_a_request_was_for_reads_as_a_sentence_does(request_context: RequestContext, text: str) -> None:
    assert str(request_context) == text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Bad gateway</html>", "a web page"),
        (
            b"<!DOCTYPE html><html><head><title>400 Request Header\n Or Cookie Too Large</title></head>x</html>",
            "a web page ('400 Request Header Or Cookie Too Large')",
        ),
        (b"<HTML><TITLE>Sign in &middot; Caf\xc3\xa9</TITLE>", "a web page ('Sign in \u00b7 Caf\u00e9')"),
        (b"<html><title>" + b"x" * 1000, f"a web page ({'x' * 100!r})"),
        (b" <?xml version='1.0'?><Error/>", ""),
        (b"<Error><Code>SignatureDoesNotMatch</Code><Message>secret</Message></Error>", "SignatureDoesNotMatch"),
        (b"<Error><Code>a b</Code></Error>", ""),
    ],
)
def test_a9_01_of_a_page_the_title_is_reported_and_of_a_stores_error_the_code(body: bytes, message: str) -> None:
    assert parse_error_body(body) == ((), message)


def test_a9_01_a_400_shows_the_title_of_the_page_that_came_with_it(registry, client_of) -> None:
    registry.on("GET", "/v2/", reply(200, b"{}"))
    page = "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"
    problem = raised_by(registry, client_of, reply(400, page, content_type="text/html"))
    assert "a web page ('400 The plain HTTP request was sent to HTTPS port')" in str(problem)
    assert problem.is_web_page


@pytest.mark.parametrize("status", [400, 413, 431, 494])
def test_a9_01_a_refusal_of_a_large_authorization_says_how_large_it_was(registry, client_of, status: int) -> None:
    registry.on("GET", TAGS, reply(status))
    token = Credentials(registry_token="t" * (12 * 1024 - 7))
    with pytest.raises(ProtocolError, match="the Authorization of the request had 12 KiB"):
        client_of(registry, token, max_attempts=1).list_tags(REPOSITORY)
    with pytest.raises(ProtocolError) as small:
        client_of(registry, READY, max_attempts=1).list_tags(REPOSITORY)
    assert "Authorization" not in str(small.value)


def test_a9_01_an_authorization_that_was_not_forwarded_is_not_blamed(registry, other_host, client_of) -> None:
    registry.on("GET", TAGS, reply(307, headers=[("Location", f"{other_host.base}/tags")]))
    other_host.on("GET", "/tags", reply(400))
    token = Credentials(registry_token="t" * 20_000)
    with pytest.raises(ProtocolError) as refused:
        client_of(registry, token, max_attempts=1).list_tags(REPOSITORY)
    assert str(refused.value).endswith(f"; {registry.netloc} redirects there")


@pytest.mark.parametrize("status", [401, 403])
def test_a9_03_an_anonymous_refusal_does_not_speak_of_credentials(registry, client_of, status: int) -> None:
    registry.on("GET", TAGS, errors_reply(status, "DENIED", headers=[("WWW-Authenticate", 'Basic realm="x"')]))
    with pytest.raises(RepositoryUnavailable) as refused:
        client_of(registry, max_attempts=1).list_tags(REPOSITORY)
    assert "credentials" not in str(refused.value)
    assert "it does not exist there, or it is private" in str(refused.value)


@pytest.mark.parametrize("credentials", [None, READY])
@pytest.mark.parametrize("status", [401, 403])
def test_a9_03_a_refusal_by_a_host_that_was_given_no_credentials_does_not_speak_of_them(
    registry, other_host, client_of, credentials: Credentials | None, status: int
) -> None:
    registry.on("GET", TAGS, reply(307, headers=[("Location", f"{other_host.base}/tags")]))
    other_host.on("GET", "/tags", reply(status))
    with pytest.raises(AccessDenied, match="redirects there") as refused:
        client_of(registry, credentials, max_attempts=1).list_tags(REPOSITORY)
    assert "credentials" not in str(refused.value)


def test_a9_01_a_message_is_one_printable_line_of_bounded_length() -> None:
    _, message = parse_error_body(b"\x1b[31mred\x1b[0m\r\nINFO forged\x00 " + b"x" * 100_000)
    assert message.startswith("[31mred [0m INFO forged")
    assert message.isprintable()
    assert len(message) == MAX_MESSAGE_LENGTH


@given(st.binary(max_size=200))
def test_a9_01_any_body_gives_codes_and_one_line(body: bytes) -> None:
    codes, message = parse_error_body(body)
    assert len(codes) <= 3
    assert message.isprintable()


@given(st.text())
def test_printable_text_is_one_line(text: str) -> None:
    assert printable(text).isprintable()


def test_a9_01_an_error_page_of_a_gigabyte_is_not_read(registry, client_of) -> None:
    endless = Raw((b"HTTP/1.1 500 X\r\n\r\n", *[b"y" * 1_000_000] * 1000))
    error = raised_by(registry, client_of, endless)
    assert isinstance(error, ServerUnavailable)
    assert len(str(error)) < 1000


def test_a9_01_an_error_page_cut_short_is_still_that_error(registry, client_of) -> None:
    error = raised_by(registry, client_of, reply(403, b'{"errors": [', length=5000, cut=True))
    assert isinstance(error, AccessDenied)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (403, AccessDenied), (500, ServerUnavailable), (418, ProtocolError)]
)
def test_a9_02_the_status_decides_whatever_the_code_says(registry, client_of, status: int, kind: type) -> None:
    assert type(raised_by(registry, client_of, errors_reply(status, "TOOMANYREQUESTS"))) is kind


def test_errors_name_the_request_and_survive_pickling(registry, client_of) -> None:
    error = raised_by(registry, client_of, errors_reply(503, "UNAVAILABLE", "later", [("Retry-After", "30")]))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ServerUnavailable
    assert (again.host, again.repository, again.method, again.status) == (registry.netloc, REPOSITORY, "GET", 503)
    assert again.url == f"{registry.base}{TAGS}"
    assert (again.codes, again.retry_after_seconds, again.is_temporary) == (("UNAVAILABLE",), 30, True)
    assert str(again) == str(error)


def test_a3_09_a_secret_that_a_registry_echoes_is_not_repeated(registry, client_of) -> None:
    error = raised_by(registry, client_of, errors_reply(403, "DENIED", "token ready-token is not valid"))
    assert "ready-token" not in str(error)
    assert "token ***" in str(error)


def test_a3_09_signatures_of_redirects_are_in_no_error(registry, other_host, client_of) -> None:
    registry.on("GET", TAGS, reply(307, headers=[("Location", f"{other_host.base}/x?sig=secret-signature")]))
    other_host.on("GET", "/x", reply(500))
    with pytest.raises(ServerUnavailable) as raised:
        client_of(registry, max_attempts=1).list_tags(REPOSITORY)
    assert "secret-signature" not in f"{raised.value} {raised.value.__dict__}"
    assert raised.value.url == f"{other_host.base}/x"
