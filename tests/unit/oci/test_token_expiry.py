"""A token that ends on its way to the registry is replaced; only one that was had for the very request refuses it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.errors import AuthenticationFailed, RegistrySyncError, ServerUnavailable
from registry_sync.oci.auth.credentials import Credentials, Minted, MintedCredentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions, Clock
from registry_sync.oci.http.origins import Origin, Target
from registry_sync.sync.parallel import for_each
from support.guarded import TAG_LIST, TAGS, USER, challenge
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply, reply, wait_until
from support.oci import REPOSITORY, FakeTime, MemoryWriter

pytestmark = pytest.mark.rule("A4.12")


class Tokens:
    """Numbered tokens; ``accepted`` says whether the registry accepts one at the time of a request."""

    def __init__(self, registry: HostileRegistry, accepted: Callable[[str], bool], **response: object) -> None:
        self.registry = registry
        self.accepted = accepted
        self.given: list[str] = []
        registry.on("GET", TAGS, self.listing)
        registry.on("GET", "/token", lambda _request: self.give(response))

    def give(self, response: dict[str, object]) -> Raw:
        self.given.append(f"token-{len(self.given) + 1}")
        return json_reply({"token": self.given[-1], **response})

    def listing(self, request: Request) -> Raw:
        token = (request.header("authorization") or "").removeprefix("Bearer ")
        return TAG_LIST if self.accepted(token) else self.challenged()

    def challenged(self) -> Raw:
        return challenge(f'Bearer realm="{self.registry.base}/token",service="s"')

    def shown(self) -> list[str | None]:
        return [request.header("authorization") for request in self.registry.asked(path=TAGS)]


def listed_by(tool: str, client: RegistryClient, registry: HostileRegistry) -> bool:
    """Whether the tags can be listed by the client, or by its session."""
    if tool == "client":
        return client.list_tags(REPOSITORY).tags == ("a",)
    return client.session().get(f"{registry.base}{TAGS}", timeout=5).status_code == 200


@pytest.mark.parametrize("tool", ["client", "session"])
def test_a_token_that_another_thread_fetched_before_and_that_ends_on_its_way_is_replaced(
    registry, client_of, tool: str
) -> None:
    """B gets the first token while A uses it up, and is then sent with it."""
    tokens = Tokens(registry, lambda token: token in tokens.given[1:])
    b_waits, a_is_done = threading.Event(), threading.Event()

    def held(request: Request) -> Raw:
        if request.header("authorization") is None and not a_is_done.is_set():
            b_waits.set()
            assert a_is_done.wait(5)
            return tokens.challenged()
        return tokens.listing(request)

    registry.on("GET", "/v2/other/tags/list", lambda _request: TAG_LIST)
    client = client_of(registry, USER)
    client.begin_with({})  # otherwise A would wait for B's first response
    registry.on("GET", TAGS, held)
    with ThreadPoolExecutor(1) as pool:
        b = pool.submit(listed_by, tool, client, registry)
        assert b_waits.wait(5)
        registry.on("GET", TAGS, tokens.challenged(), TAG_LIST)
        assert client.list_tags(REPOSITORY).tags == ("a",)
        assert tokens.given == ["token-1"]
        registry.on("GET", TAGS, held)
        a_is_done.set()
        assert b.result(5)
    assert tokens.given == ["token-1", "token-2"]
    assert [shown for shown in tokens.shown() if shown][-2:] == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("tool", ["client", "session"])
def test_a_registry_that_never_accepts_is_sent_two_requests_with_two_tokens(registry, client_of, tool: str) -> None:
    """Also when the client knows the challenge from the start."""
    tokens = Tokens(registry, lambda token: token == "token-1", expires_in=60)
    client = client_of(registry, USER)
    assert listed_by(tool, client, registry)
    tokens.accepted = lambda _token: False
    before = len(registry.asked(path=TAGS))
    if tool == "client":
        with pytest.raises(AuthenticationFailed):
            client.list_tags(REPOSITORY)
    else:
        assert not listed_by(tool, client, registry)
    assert tokens.shown()[before:] == ["Bearer token-1", "Bearer token-2"]
    assert len(tokens.given) == 2


def test_when_the_kept_token_has_expired_too_it_is_two_sends_and_two_exchanges_of_one_try(
    registry, client_of, fake_time: FakeTime
) -> None:
    tokens = Tokens(registry, lambda token: token == "token-1", expires_in=300)
    client = client_of(registry, USER)
    client.list_tags(REPOSITORY)
    fake_time.elapsed += 280
    before = len(registry.asked(path=TAGS))
    with pytest.raises(AuthenticationFailed):
        client.list_tags(REPOSITORY)
    assert tokens.shown()[before:] == ["Bearer token-2", "Bearer token-3"]
    assert len(tokens.given) == 3


def held_up(tokens: Tokens, client: RegistryClient, registry: HostileRegistry, tool: str) -> Future[bool]:
    """A request whose first 401 comes after another thread has fetched a token; the registry accepts none of them."""
    client.begin_with({})  # otherwise the other thread would wait for the first response
    waits, goes_on = threading.Event(), threading.Event()

    def held(_request: Request) -> Raw:
        waits.set()
        assert goes_on.wait(5)
        return tokens.challenged()

    registry.on("GET", TAGS, held)
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(listed_by, tool, client, registry)
        assert waits.wait(5)
        registry.on("GET", TAGS, tokens.challenged(), TAG_LIST)
        client.list_tags(REPOSITORY)
        registry.on("GET", TAGS, tokens.challenged())
        registry.requests.clear()
        goes_on.set()
    return listing


@pytest.mark.parametrize("tool", ["client", "session"])
def test_a_try_has_three_sends_and_two_exchanges_at_most(registry, client_of, tool: str) -> None:
    tokens = Tokens(registry, lambda _token: False)
    listing = held_up(tokens, client_of(registry, USER), registry, tool)
    if tool == "client":
        assert isinstance(listing.exception(5), AuthenticationFailed)
    else:
        assert not listing.result(5)
    assert tokens.shown() == ["Bearer token-1", "Bearer token-2"], "after the anonymous one, which was on its way"
    assert tokens.given == ["token-1", "token-2"]


def test_the_turn_is_taken_before_the_token_is_read(registry, client_of, fake_time: FakeTime) -> None:
    """With a turn each hundred seconds a token of a minute would be over whenever it was read first."""
    given_at: list[float] = []

    def accepted(token: str) -> bool:
        return bool(token) and fake_time.elapsed - given_at[int(token.removeprefix("token-")) - 1] < 60

    tokens = Tokens(registry, accepted, expires_in=60)
    registry.on("GET", "/token", lambda _request: (given_at.append(fake_time.elapsed), tokens.give({}))[1])
    client = client_of(registry, USER, requests_per_second=0.01)
    for _ in range(3):
        client.list_tags(REPOSITORY)
    assert client.session().get(f"{registry.base}{TAGS}", timeout=5).status_code == 200
    assert tokens.shown() == [None, "Bearer token-1", "Bearer token-2", "Bearer token-3", "Bearer token-4"]


def test_a_token_is_read_anew_for_each_hop_that_stays_at_the_registry(registry, client_of, fake_time: FakeTime) -> None:
    tokens = Tokens(registry, lambda token: token == "token-1", expires_in=60)
    client = client_of(registry, USER)
    client.list_tags(REPOSITORY)

    def moved(_request: Request) -> Raw:
        fake_time.elapsed += 58
        return reply(307, headers=[("Location", "/moved")])

    registry.on("GET", TAGS, moved)
    registry.on("GET", "/moved", TAG_LIST)
    client.list_tags(REPOSITORY)
    assert [request.header("authorization") for request in registry.asked(path="/moved")] == ["Bearer token-2"]
    assert len(tokens.given) == 2


def test_threads_that_waited_for_one_exchange_take_another_turn_each(registry, client_of) -> None:
    """So that they do not all start at the time when the token arrives."""
    slept: list[float] = []
    clock = Clock(monotonic=lambda: 1000.0, sleep=slept.append)
    options = ClientOptions(allow_insecure_credentials=True, requests_per_second=10)
    tokens = Tokens(registry, bool)
    entered, go_on, all_asked = threading.Event(), threading.Event(), threading.Barrier(4)

    def listing(request: Request) -> Raw:
        if request.header("authorization") is None:
            all_asked.wait(5)
        return tokens.listing(request)

    def slow(_request: Request) -> Raw:
        entered.set()
        assert go_on.wait(5)
        return tokens.give({})

    registry.on("GET", TAGS, listing)
    registry.on("GET", "/token", slow)
    with RegistryClient(registry.url, USER, options, clock=clock) as client, ThreadPoolExecutor(4) as pool:
        client.begin_with({})
        listings = [pool.submit(client.list_tags, REPOSITORY) for _ in range(4)]
        assert entered.wait(5)
        assert wait_until(lambda: len(slept) == 8 and len(registry.asked(path=TAGS)) == 4, 5)
        go_on.set()
        assert [listing.result(5).tags for listing in listings] == [("a",)] * 4
    turns = [round(1 + seconds * 10) for seconds in sorted(slept)]
    assert turns == list(range(2, 2 + len(turns))), "no two are at the same moment"
    assert len(turns) > 4 + 4 + 1 - 1, "those who waited took one more than two each and the exchange's"


def test_a_token_that_waited_here_for_a_connection_makes_a_temporary_error(
    registry, other_host, client_of, fake_time: FakeTime
) -> None:
    """Its exchange started after the 401, and half a minute passed before the request could leave."""
    occupied, let_go = threading.Event(), threading.Event()

    def occupy(_request: Request) -> Raw:
        occupied.set()
        assert let_go.wait(5)
        return reply(200)

    registry.on("GET", "/occupy", occupy)
    registry.on("GET", TAGS, challenge(f'Bearer realm="{other_host.base}/token",service="s"'))
    client = client_of(registry, concurrency=1, max_attempts=1)
    with ThreadPoolExecutor(1) as pool:

        def token(_request: Request) -> Raw:
            target = Target(Origin.of(registry.url), "/occupy")
            pool.submit(lambda: client._requester._transport.send("GET", target, {}).discard())
            assert occupied.wait(5)
            threading.Timer(0.05, lambda: (fake_time.sleep(30), let_go.set())).start()
            return json_reply({"token": "aged", "expires_in": 300})

        other_host.on("GET", "/token", token)
        with pytest.raises(ServerUnavailable, match="expired before") as raised:
            client.list_tags(REPOSITORY)
    assert raised.value.is_temporary
    assert len(registry.asked(path=TAGS)) == 2


def test_a_token_that_has_expired_by_its_stated_life_makes_a_temporary_error(
    registry, client_of, fake_time: FakeTime
) -> None:
    tokens = Tokens(registry, lambda _token: False, expires_in=1)

    def slow(request: Request) -> Raw:
        fake_time.elapsed += 2
        return tokens.listing(request)

    registry.on("GET", TAGS, slow)
    with pytest.raises(ServerUnavailable):
        client_of(registry, USER, max_attempts=1).list_tags(REPOSITORY)


@pytest.mark.rule("A4.17")
@pytest.mark.parametrize("tool", ["client", "session"])
def test_a_minted_password_that_ends_on_its_way_is_replaced(
    registry, client_of, fake_time: FakeTime, tool: str
) -> None:
    """It was made for an earlier request, and the first that it is sent with is the second send of this one."""
    made: list[str] = []

    def mint() -> Minted:
        made.append(f"password-{len(made) + 1}")
        return Minted(Credentials("AWS", made[-1]), 1000)

    wanted = Credentials("AWS", "password-2").basic
    registry.on(
        "GET",
        TAGS,
        lambda request: TAG_LIST if request.header("authorization") == wanted else challenge("Basic realm=x"),
    )
    source = MintedCredentials(mint, fake_time.clock)
    source()
    fake_time.elapsed += 100
    assert listed_by(tool, client_of(registry, source), registry)
    assert len(registry.requests) == 3
    assert made == ["password-1", "password-2"]


def test_a_password_that_is_fixed_is_sent_once(registry, client_of) -> None:
    registry.on("GET", TAGS, challenge("Basic realm=x"))
    with pytest.raises(AuthenticationFailed):
        client_of(registry, USER).list_tags(REPOSITORY)
    assert [request.header("authorization") for request in registry.requests] == [None, USER.basic]


#: How much faster time passes for the client and the tokens below.
SPEED = 4.0
BLOB_COUNT, THREADS = 600, 20


@pytest.mark.slow
def test_600_blobs_arrive_by_20_threads_whose_tokens_live_a_second_behind_a_slow_service(registry) -> None:
    given_at: dict[str, float] = {}
    clock = Clock(lambda: time.monotonic() * SPEED, sleep=lambda seconds: time.sleep(seconds / SPEED))

    def token(_request: Request) -> Raw:
        text = f"token-{len(given_at)}"
        given_at[text] = clock.monotonic()
        time.sleep(0.5 / SPEED)
        return json_reply({"token": text, "expires_in": 1})

    chance = random.Random(7)
    content = {Digest.of(data): data for data in (b"%d" % number for number in range(BLOB_COUNT))}

    def blob(request: Request) -> Raw:
        time.sleep((0.35 if chance.random() < 0.1 else 0.02) / SPEED)
        issued = given_at.get((request.header("authorization") or "").removeprefix("Bearer "))
        if issued is None or clock.monotonic() - issued > 1:
            return challenge(f'Bearer realm="{registry.base}/token",service="s"')
        return reply(200, content[Digest(request.path.rpartition("/")[2])])

    for digest in content:
        registry.on("GET", f"/v2/{REPOSITORY}/blobs/{digest}", blob)
    registry.on("GET", "/token", token)
    options = ClientOptions(allow_insecure_credentials=True, concurrency=THREADS)
    failures: list[RegistrySyncError] = []
    for _ in range(2):
        with RegistryClient(registry.url, USER, options, clock=clock) as client:

            def fetch(digest: Digest, client: RegistryClient = client) -> bytes | None:
                descriptor = Descriptor("application/octet-stream", digest, len(content[digest]))
                writer = MemoryWriter(descriptor)
                client.fetch_blob(REPOSITORY, descriptor, writer)
                return writer.published

            fetched: dict[Digest, bytes | None] = {}
            for_each(
                fetch,
                content,
                threads=THREADS,
                done=fetched.__setitem__,
                failed=lambda _digest, problem: failures.append(problem),
            )
        assert failures == []
        assert fetched == content
