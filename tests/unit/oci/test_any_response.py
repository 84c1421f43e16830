"""Whatever bytes a server sends, the client ends in time with an error of its own, and keeps working."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import TagName
from registry_sync.errors import RegistryError, RegistrySyncError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions, Clock
from support.examples import examples
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply, reply
from support.oci import REPOSITORY, MemoryWriter

BLOB = Descriptor("x/y", Digest.of(b"12345"), 5)
TAG = TagName("latest")
PATHS = (
    "/v2/",
    f"/v2/{REPOSITORY}/tags/list",
    f"/v2/{REPOSITORY}/manifests/{TAG}",
    f"/v2/{REPOSITORY}/blobs/{BLOB.digest}",
    f"/v2/{REPOSITORY}/referrers/{BLOB.digest}",
    "/token",
)
HEADERS = (
    "Content-Length", "Transfer-Encoding", "Content-Encoding", "Content-Type", "Location", "Link", "WWW-Authenticate",
    "Content-Range", "ETag", "Docker-Content-Digest", "Retry-After", "Warning", "ratelimit-remaining", "Connection",
)  # fmt: skip
VALUES = (
    "0", "5", "-1", "chunked", "gzip", "deflate", "application/json", "/token", "/v2/", "<?n=1>; rel=next", "close",
    "Basic realm=x", 'Bearer realm="/token"', 'Bearer realm="/token",error="insufficient_scope"', "bytes 0-4/5", '"x"',
    '299 - "w"', str(BLOB.digest), "\xff", "",
)  # fmt: skip
BODIES = (
    b"",
    b"12345",
    b"{}",
    b'{"tags": ["a"]}',
    b'{"token": "t"}',
    b"5\r\n12345\r\n0\r\n\r\n",
    b"\x1f\x8b\x08",
    b"<html>",
)

_text = st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=30)
_answers = st.one_of(
    st.binary(max_size=100).map(lambda data: Raw((data,))),
    st.builds(
        lambda status, headers, body: Raw(
            (
                f"HTTP/1.1 {status} X\r\n".encode(),
                *(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers),
                b"\r\n",
                body,
            )
        ),
        st.sampled_from([100, 200, 204, 206, 301, 304, 307, 400, 401, 403, 404, 406, 416, 429, 500, 503, 999]),
        st.lists(st.tuples(st.sampled_from(HEADERS), st.sampled_from(VALUES) | _text), max_size=4),
        st.sampled_from(BODIES) | st.binary(max_size=60),
    ),
)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileRegistry]:
    with HostileRegistry() as running:
        yield running


def operations(client: RegistryClient):  # type: ignore[no-untyped-def]
    yield client.ping
    yield lambda: client.list_tags(REPOSITORY)
    yield lambda: client.head_manifest(REPOSITORY, TAG)
    yield lambda: client.get_manifest(REPOSITORY, TAG)
    yield lambda: client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    yield lambda: client.list_referrers(REPOSITORY, BLOB.digest)


def error_of(operation: Callable[[], object]) -> str:
    """The message of its error, empty when there is none. Anything but an error of ours goes through."""
    try:
        operation()
    except RegistrySyncError as problem:
        return str(problem)
    return ""


def works_again(server: HostileRegistry, client: RegistryClient) -> None:
    """The client reads what a sound registry sends; but it asks for no token again that it was finally refused."""
    server.on("GET", PATHS[1], json_reply({"tags": ["still-here"]}))
    for method in ("GET", "POST"):
        server.on(method, "/token", json_reply({"token": "good"}))
    had_asked = len(server.asked(path="/token"))
    refusal: RegistryError | None = None
    tags: tuple[str, ...] = ()
    try:
        tags = client.list_tags(REPOSITORY).tags
    except RegistryError as problem:
        refusal = problem
    if refusal is None:
        assert tags == ("still-here",)
    else:
        assert had_asked
        assert len(server.asked(path="/token")) == had_asked
        assert not refusal.is_temporary


@pytest.mark.slow
@settings(**examples(40))
@given(responses=st.lists(_answers, min_size=1, max_size=3), has_password=st.booleans())
@example(responses=[Raw((b'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm="/token"\r\n\r\n',))], has_password=True)
def test_any_response_ends_in_a_result_or_an_error_of_ours(
    server: HostileRegistry, responses: list[Raw], has_password: bool
) -> None:
    server.requests.clear()
    for path in PATHS:
        for method in ("GET", "HEAD", "POST"):
            server.on(method, path, *responses)
    options = ClientOptions(max_attempts=2, read_timeout_seconds=1, concurrency=1, allow_insecure_credentials=True)
    credentials = Credentials("alice", "correct horse") if has_password else None
    client = RegistryClient(server.url, credentials, options, clock=Clock(sleep=lambda _seconds: None))
    with client:
        for operation in operations(client):
            reported = error_of(operation)
            assert "correct horse" not in reported
        works_again(server, client)
    assert json.dumps(client.usage.counts().__dict__)


_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12), st.just([])
)
_token_answers = st.dictionaries(
    st.sampled_from(["token", "access_token", "refresh_token", "expires_in", "issued_at", "scope", "x"]), _values
)


@settings(**examples(30))
@given(document=_token_answers, has_identity_token=st.booleans())
def test_a4_04_any_token_response_ends_in_a_result_or_an_error_of_ours(
    server: HostileRegistry, document: dict[str, object], has_identity_token: bool
) -> None:
    sent: list[str] = []

    def response(request: Request) -> Raw:
        if (authorization := request.header("authorization")) is not None:
            sent.append(authorization)
            return json_reply({"tags": ["a"]})
        return reply(401, headers=[("WWW-Authenticate", f'Bearer realm="{server.base}/token"')])

    server.on("GET", PATHS[1], response)
    for method in ("GET", "POST"):
        server.on(method, "/token", json_reply(document))
    options = ClientOptions(max_attempts=1, read_timeout_seconds=1, allow_insecure_credentials=True)
    credentials = Credentials(identity_token="correct horse") if has_identity_token else None
    with RegistryClient(server.url, credentials, options, clock=Clock(sleep=lambda _seconds: None)) as client:
        reported = error_of(lambda: client.list_tags(REPOSITORY))
    assert "correct horse" not in reported
    allowed = [f"Bearer {document[name]}" for name in ("token", "access_token") if isinstance(document.get(name), str)]
    assert set(sent) <= set(allowed)
    assert bool(sent) != bool(reported)
