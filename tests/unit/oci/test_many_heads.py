"""HEADs of many tags from one thread end as they do one by one, whatever a registry does, with the same requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import RunUsage
from registry_sync.errors import RegistryError, RegistrySyncError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.origins import Origin
from registry_sync.oci.http.received import MAX_HEADERS
from support.certificates import CertificateAuthority
from support.examples import examples
from support.hostile_registry import Answer, HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import READY, REPOSITORY, TAGS, FakeTime, moved

NAMES = [TagName(f"v{number}") for number in range(8)]
ODD = TagName("v3")


def path_of(tag: str) -> str:
    return f"/v2/{REPOSITORY}/manifests/{tag}"


def digest_of(tag: str) -> Digest:
    return Digest.of(tag.encode())


def head_of(tag: str, *headers: tuple[str, str], **more: Any) -> Raw:
    return reply(200, b"", [("Docker-Content-Digest", str(digest_of(tag))), *headers], **more)


def split(response: Raw, *, closes: bool = False) -> Raw:
    """The same headers, each byte in a packet of its own."""
    data = b"".join(piece for piece in response.pieces if isinstance(piece, bytes))
    pieces: list[bytes | float] = []
    for number in range(len(data)):
        pieces += [data[number : number + 1], 0.0005]
    return Raw(tuple(pieces), closes=closes, is_exact=True)


def exact(data: bytes, *, closes: bool = False) -> Raw:
    return Raw((data,), closes=closes, is_exact=True)


PLAIN = f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest_of(ODD)}\r\n".encode()
LIMIT = [("Retry-After", "7")]


def challenge_of(registry: HostileRegistry) -> Raw:
    said = f'Bearer realm="{registry.base}/token",service="s"'
    return errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", said)])


#: What the registry does for one of the tags: each in turn, the last one always.
ANSWERS: dict[str, Callable[[HostileRegistry], Sequence[Answer]]] = {
    "plain": lambda _: [head_of(ODD)],
    "missing": lambda _: [errors_reply(404, "MANIFEST_UNKNOWN")],
    "repository is missing": lambda _: [errors_reply(404, "NAME_UNKNOWN")],
    "limited, then served": lambda _: [errors_reply(429, "TOOMANYREQUESTS", headers=LIMIT), head_of(ODD)],
    "limited for long": lambda _: [errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", "3600")])],
    "limited and closed": lambda _: [replace(reply(429, headers=LIMIT), closes=True), head_of(ODD)],
    "unavailable once": lambda _: [reply(503), head_of(ODD)],
    "unavailable": lambda _: [reply(502)],
    "denied": lambda _: [errors_reply(403, "DENIED")],
    "challenged once": lambda registry: [challenge_of(registry), head_of(ODD)],
    "challenged and refused": lambda registry: [challenge_of(registry)],
    "challenged without a challenge": lambda _: [reply(401)],
    "no content": lambda _: [reply(204, content_type=None)],
    "moved": lambda registry: [moved(f"{registry.base}/there")],
    "moved without a place": lambda _: [reply(307)],
    "moved to nowhere": lambda _: [moved("http://169.254.169.254/latest")],
    "moved in a circle": lambda _: [moved(path_of(ODD))],
    "closed at once": lambda _: [exact(b"", closes=True), head_of(ODD)],
    "closed within the headers": lambda _: [exact(PLAIN, closes=True), head_of(ODD)],
    "closed always": lambda _: [exact(b"", closes=True)],
    "closed after the response": lambda _: [head_of(ODD, cut=True)],
    "said to be closed": lambda _: [head_of(ODD, ("Connection", "Close"))],
    "of an old version": lambda _: [exact(PLAIN.replace(b"1.1", b"1.0") + b"\r\n", closes=True)],
    "each byte alone": lambda _: [split(head_of(ODD))],
    "each byte of a refusal alone": lambda _: [split(reply(404, headers=LIMIT))],
    "chunked": lambda _: [head_of(ODD, ("Transfer-Encoding", "chunked"))],
    "chunked, each byte alone": lambda _: [split(head_of(ODD, ("Transfer-Encoding", "chunked")))],
    "with a body": lambda _: [exact(PLAIN + b"Content-Length: 5\r\n\r\n12345", closes=True)],
    "bare line ends": lambda _: [exact(PLAIN.replace(b"\r\n", b"\n") + b"\n", closes=True)],
    "a folded header": lambda _: [exact(PLAIN + b"X-A: a\r\n b\r\n\r\n")],
    "continued": lambda _: [exact(b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN + b"\r\n")],
    "no digest": lambda _: [reply(200)],
    "an odd digest": lambda _: [reply(200, headers=[("Docker-Content-Digest", "sha256:ZZ")])],
    "two digests": lambda _: [head_of(ODD, ("Docker-Content-Digest", str(digest_of("x"))))],
    "another digest": lambda _: [head_of("x")],
    "an empty length": lambda _: [head_of(ODD, ("Content-Length", ""), length=None)],
    "a web page": lambda _: [head_of(ODD, content_type="text/html")],
    "a warning": lambda _: [head_of(ODD, ("Warning", '299 - "soon"'))],
    "remaining pulls": lambda _: [head_of(ODD, ("ratelimit-remaining", "9;w=60"))],
    "too many headers": lambda _: [exact(PLAIN + b"X: y\r\n" * MAX_HEADERS + b"\r\n", closes=True)],
    "as many headers as may be": lambda _: [exact(PLAIN + b"X: y\r\n" * (MAX_HEADERS - 2) + b"\r\n")],
}


#: The connection ends without a word: that is noticed before the next request, or by it, which is then repeated.
SILENTLY_CLOSED = frozenset(
    {
        "limited and closed",
        "closed after the response",
        "with a body",
        "bare line ends",
        "an empty length",
        "too many headers",
    }
)


@pytest.fixture(params=["plain", "TLS"])
def server(request: pytest.FixtureRequest, authority: CertificateAuthority) -> Iterator[HostileRegistry]:
    certificate = authority.server() if request.param == "TLS" else None
    paths = None if certificate is None else (str(certificate.chain_path), str(certificate.key_path))
    with HostileRegistry(paths) as registry:
        yield registry


def scripted(registry: HostileRegistry, *odd: Answer) -> None:
    """Serves every tag; ``odd`` are for one of them."""
    registry.on("GET", TAGS, json_reply({"tags": NAMES}))
    registry.on("GET", "/token", json_reply({"token": "good"}))
    registry.on("GET", "/v2/", json_reply({}))
    registry.on("HEAD", "/there", head_of(ODD))
    for tag in NAMES:
        registry.on("HEAD", path_of(tag), head_of(tag))
    if odd:
        registry.on("HEAD", path_of(ODD), *odd)


Found = dict[str, Any]


def _ended(head: Callable[[], Any]) -> Any:
    """A digest, or what there is to see of an error."""
    try:
        return head().digest
    except RegistryError as error:
        return type(error), error.message, error.status, error.codes, error.retry_after_seconds, error.redirected_by
    except RegistrySyncError as error:
        return type(error), str(error)


def one_by_one(client: RegistryClient, names: Sequence[TagName]) -> Found:
    return {tag: _ended(lambda tag=tag: client.head_manifest(REPOSITORY, tag)) for tag in names}  # type: ignore[misc]


def at_once(client: RegistryClient, names: Sequence[TagName], most: int = 1) -> Found:
    """As a listing does it: what is left goes on one by one."""
    found: Found = {}
    left = client.head_manifests(REPOSITORY, names, found.__setitem__, most=lambda: most)
    assert sorted([*found, *left.started, *left.waiting]) == sorted(names)
    assert found.keys() >= set(names[:3]), "nothing speaks against these"
    for tag in map(TagName, [*left.started, *left.waiting]):
        started = left.started.get(tag)
        found[tag] = _ended(lambda tag=tag, started=started: client.head_manifest(REPOSITORY, tag, started=started))  # type: ignore[misc]
    return found


def seen(registry: HostileRegistry, client: RegistryClient) -> tuple[Any, ...]:
    """What a registry was asked, and what a client says of it."""
    asked = sorted((r.method, r.target, r.header("authorization") or "", r.headers) for r in registry.requests)
    usage = client.usage
    return asked, usage.counts(), usage.statuses, usage.warnings, usage.rate_limit


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("credentials", [None, READY, Credentials("ana", "secret")], ids=["anonymous", "token", "user"])
def test_every_response_ends_as_it_does_alone_and_nothing_is_requested_twice(
    server: HostileRegistry, client_of: Any, case: str, credentials: Credentials | None
) -> None:
    ends: list[Any] = []
    for way in (one_by_one, at_once):
        scripted(server, *ANSWERS[case](server))
        client: RegistryClient = client_of(server, credentials, verify=False)
        client.list_tags(REPOSITORY)
        server.requests.clear()
        found = way(client, NAMES)
        ends.append(found if case in SILENTLY_CLOSED else (found, *seen(server, client)))
    assert ends[1] == ends[0]


def test_tags_are_requested_at_once_over_connections_that_are_open(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, READY)
    opened = threading.Barrier(3)

    def wait(_request: Request) -> Raw:
        opened.wait(5)
        return json_reply({"tags": NAMES})

    registry.on("GET", TAGS, wait)
    threads = [threading.Thread(target=client.list_tags, args=(REPOSITORY,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    under_way, most = [], []
    arrived, release = threading.Semaphore(0), threading.Event()

    def slow(request: Request) -> Raw:
        under_way.append(request)
        most.append(len(under_way))
        arrived.release()
        release.wait(5)
        under_way.remove(request)
        return head_of(request.path.rpartition("/")[2])

    for tag in NAMES:
        registry.on("HEAD", path_of(tag), slow)

    def let_go() -> None:
        for _ in range(3):
            arrived.acquire(timeout=5)
        release.set()

    releasing = threading.Thread(target=let_go)
    releasing.start()
    found: Found = {}
    left = client.head_manifests(REPOSITORY, NAMES, found.__setitem__, most=lambda: 5)
    releasing.join()
    assert max(most) == 3, "as many as are open, although five are allowed"
    assert found | {tag: digest_of(tag) for tag in left.waiting} == {tag: digest_of(tag) for tag in NAMES}
    assert registry.connection_count == 3
    assert not left.started


def test_without_an_open_connection_none_is_opened(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, READY)
    left = client.head_manifests(REPOSITORY, NAMES, {}.__setitem__, most=lambda: 5)
    assert (list(left.waiting), left.started, registry.requests) == (NAMES, {}, [])


def test_slow_requests_go_on_from_one_thread_where_no_other_connection_may_be_opened(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, READY, concurrency=2)
    client.list_tags(REPOSITORY)
    pool = client._transport.pools.pool(Origin.of(client.registry))
    opened, of_others = pool.pool.get(), pool.pool.get()
    pool._put_conn(opened)

    def slow(request: Request) -> Raw:
        time.sleep(0.02)
        return head_of(request.path.rpartition("/")[2])

    for tag in NAMES:
        registry.on("HEAD", path_of(tag), slow)
    found: Found = {}
    left = client.head_manifests(REPOSITORY, NAMES, found.__setitem__, most=lambda: 5)
    assert (found.keys(), left.started, list(left.waiting)) == (set(NAMES), {}, [])
    assert registry.connection_count == 1
    pool._put_conn(of_others)
    left = client.head_manifests(REPOSITORY, NAMES, {}.__setitem__, most=lambda: 5)
    assert (left.started, list(left.waiting)) == ({}, [])
    assert registry.connection_count == 2, "another one is opened beside them once it may be"


def slow_heads(registry: HostileRegistry, seconds: float = 0.03) -> None:
    def slow(request: Request) -> Raw:
        time.sleep(seconds)
        return head_of(request.path.rpartition("/")[2])

    for tag in NAMES:
        registry.on("HEAD", path_of(tag), slow)


@pytest.mark.parametrize(("most", "concurrency", "opened"), [(5, 64, 5), (5, 3, 3), (64, 64, 8)])
def test_where_requests_take_long_more_connections_are_opened_beside_them(
    server, client_of, most: int, concurrency: int, opened: int
) -> None:
    scripted(server)
    client = client_of(server, READY, concurrency=concurrency, verify=False)
    client.list_tags(REPOSITORY)
    slow_heads(server, 0.1)
    found: Found = {}
    left = client.head_manifests(REPOSITORY, NAMES, found.__setitem__, most=lambda: most)
    assert (found, left.started, list(left.waiting)) == ({tag: digest_of(tag) for tag in NAMES}, {}, [])
    assert server.connection_count == opened, "no more than there are tags, than may be, and than are allowed"
    assert len(server.asked("HEAD")) == len(NAMES)


def test_quick_requests_open_no_connections(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, READY)
    client.list_tags(REPOSITORY)
    client.head_manifests(REPOSITORY, NAMES, {}.__setitem__, most=lambda: 64)
    assert registry.connection_count == 1


def test_where_no_other_connection_can_be_opened_the_usual_path_finds_out(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, READY)
    client.list_tags(REPOSITORY)
    slow_heads(registry, 0.1)
    registry.stop_accepting()
    found: Found = {}
    left = client.head_manifests(REPOSITORY, NAMES, found.__setitem__, most=lambda: 5)
    assert found, "what was under way has ended"
    assert sorted([*found, *left.waiting]) == NAMES
    assert not left.started
    assert client.head_manifest(REPOSITORY, NAMES[-1]).digest == digest_of(NAMES[-1]), "by the connection that is open"


def test_a_limited_rate_is_kept_by_the_usual_path(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, requests_per_second=2)
    client.list_tags(REPOSITORY)
    found: Found = {}
    left = client.head_manifests(REPOSITORY, NAMES, found.__setitem__, most=lambda: 5)
    assert (found, list(left.waiting)) == ({}, NAMES)


def test_after_a_refusal_nothing_more_is_sent_until_it_was_gone_on_from(registry, client_of) -> None:
    scripted(registry, errors_reply(429, "TOOMANYREQUESTS", headers=LIMIT), head_of(ODD))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    found: Found = {}
    left = client.head_manifests(REPOSITORY, NAMES, found.__setitem__, most=lambda: 1)
    assert (list(left.started), list(left.waiting)) == ([ODD], NAMES[4:])
    assert len(registry.asked("HEAD")) == 4
    assert left.started[ODD].is_taken is False


def test_an_expired_token_of_many_requests_is_renewed_once(registry, client_of) -> None:
    tokens = iter(["old", "new", "unneeded"])
    registry.on("GET", "/token", lambda _request: json_reply({"token": next(tokens)}))
    accepted = {"Bearer old"}

    def guarded(response: Raw) -> Callable[[Request], Raw]:
        return lambda request: response if request.header("authorization") in accepted else challenge_of(registry)

    registry.on("GET", TAGS, guarded(json_reply({"tags": NAMES})))
    for tag in NAMES:
        registry.on("HEAD", path_of(tag), guarded(head_of(tag)))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    registry.requests.clear()
    accepted.clear()
    accepted.add("Bearer new")
    found: Found = {}
    names = list(NAMES)
    while names:
        left = client.head_manifests(REPOSITORY, names, found.__setitem__, most=lambda: 5)
        for tag, started in left.started.items():
            found[TagName(tag)] = client.head_manifest(REPOSITORY, TagName(tag), started=started).digest
        names = list(map(TagName, left.waiting))
    assert found == {tag: digest_of(tag) for tag in NAMES}
    assert len(registry.asked(path="/token")) == 1
    assert len(registry.asked("HEAD")) == len(NAMES) + 1


def test_what_comes_after_a_response_is_not_taken_for_the_next_one(registry, client_of) -> None:
    lie = f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest_of('lie')}\r\n\r\n".encode()
    scripted(registry, exact(PLAIN + b"\r\n" + lie))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    assert at_once(client, NAMES) == {tag: digest_of(tag) for tag in NAMES}
    assert registry.connection_count == 2


def test_a_body_that_comes_late_costs_a_connection_and_no_tag(registry, client_of) -> None:
    """Its bytes are no response to the next request, which is sent again elsewhere."""
    scripted(registry, Raw((PLAIN + b"Content-Length: 5\r\n\r\n", 0.1, b"12345"), closes=False, is_exact=True))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    assert at_once(client, NAMES) == {tag: digest_of(tag) for tag in NAMES}


def test_a_response_that_does_not_come_is_waited_for_as_long_as_others_are(registry, client_of) -> None:
    scripted(registry, Raw((PLAIN, threading.Event()), is_exact=True))
    client = client_of(registry, read_timeout_seconds=0.2, max_attempts=1)
    client.list_tags(REPOSITORY)
    found = at_once(client, NAMES)
    assert found.pop(ODD)[1].endswith("did not respond in time")
    assert found == {tag: digest_of(tag) for tag in NAMES if tag != ODD}


def test_an_error_of_the_caller_leaves_neither_slots_nor_connections_behind(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, concurrency=2)
    client.list_tags(REPOSITORY)

    def fail(_tag: TagName, _digest: Digest) -> None:
        raise KeyboardInterrupt

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            client.head_manifests(REPOSITORY, NAMES, fail, most=lambda: 5)
    assert one_by_one(client, NAMES) == {tag: digest_of(tag) for tag in NAMES}
    assert at_once(client, NAMES) == {tag: digest_of(tag) for tag in NAMES}


def test_the_namespace_of_a_mirror_is_sent_with_each(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry, namespace="docker.io")
    client.list_tags(REPOSITORY)
    registry.requests.clear()
    at_once(client, NAMES)
    assert [request.target for request in registry.requests] == [f"{path_of(tag)}?ns=docker.io" for tag in NAMES]


@pytest.mark.slow
@given(data=st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda data: PLAIN + data + b"\r\n\r\n")))
@settings(**examples(40))
def test_any_bytes_end_as_they_do_alone(data: bytes) -> None:
    """The connection ends behind them."""
    ends = []
    for way in (one_by_one, at_once):
        with HostileRegistry() as registry:
            scripted(registry, exact(data, closes=True))
            options = ClientOptions(read_timeout_seconds=5, max_attempts=2)
            with RegistryClient(registry.url, None, options, None, FakeTime().clock) as client:
                client.list_tags(REPOSITORY)
                found = way(client, NAMES)
                ends.append({tag: str(end).replace(registry.netloc, "registry") for tag, end in found.items()})
    assert ends[1] == ends[0]


def test_usage_counts_each_request_once(registry, client_of) -> None:
    scripted(registry)
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    at_once(client, NAMES)
    assert client.usage.counts() == RunUsage(head_count=len(NAMES), tag_page_count=1)
    assert client.usage.statuses == {200: len(NAMES) + 1}
