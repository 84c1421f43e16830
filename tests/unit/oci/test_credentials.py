"""Short-lived credentials: issued when required, before they expire, and after a registry refused them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.errors import AuthenticationFailed, ServerUnavailable
from registry_sync.oci.auth.credentials import Credentials, Minted, MintedCredentials, ReportedCredentials
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply
from support.oci import REPOSITORY, FakeTime

pytestmark = pytest.mark.rule("A4.17")
TAGS = f"/v2/{REPOSITORY}/tags/list"


class Mint:
    """Makes ``AWS:password-1``, ``AWS:password-2`` and so on, each for ``life_seconds``; fails while ``is_failing``."""

    def __init__(self, life_seconds: float = 1000) -> None:
        self.life_seconds = life_seconds
        self.count = 0
        self.is_failing = False

    def __call__(self) -> Minted:
        if self.is_failing:
            raise ServerUnavailable("the service is down")
        self.count += 1
        return Minted(Credentials("AWS", f"password-{self.count}"), self.life_seconds)


def test_they_are_made_once_and_again_when_a_tenth_of_their_life_is_left(fake_time: FakeTime) -> None:
    mint = Mint()
    source = MintedCredentials(mint, fake_time.clock)
    assert mint.count == 0, "nothing is asked before it is needed"
    assert {source().password for _ in range(10)} == {"password-1"}
    fake_time.elapsed += 899
    assert source().password == "password-1"
    fake_time.elapsed += 1
    assert source().password == "password-2"


def test_a_life_that_has_ended_or_is_too_short_is_used_for_a_minute(fake_time: FakeTime) -> None:
    """A wrong clock must not lead to endless requests to a token service."""
    mint = Mint(life_seconds=-3600)
    source = MintedCredentials(mint, fake_time.clock)
    for _ in range(50):
        source()
        fake_time.elapsed += 1
    assert mint.count == 1


def test_while_the_service_is_down_the_old_ones_are_used_until_they_end(fake_time: FakeTime) -> None:
    mint = Mint()
    source = MintedCredentials(mint, fake_time.clock)
    source()
    mint.is_failing = True
    fake_time.elapsed += 950
    assert source().password == "password-1"
    fake_time.elapsed += 50
    with pytest.raises(ServerUnavailable):
        source()
    mint.is_failing = False
    assert source().password == "password-2"


def test_threads_that_require_new_ones_wait_for_one_minting(fake_time: FakeTime) -> None:
    mint = Mint()
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> Minted:
        entered.set()
        assert go_on.wait(5)
        return mint()

    source = MintedCredentials(slow, fake_time.clock)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(source) for _ in range(8)]
        assert entered.wait(5)
        go_on.set()
        assert {future.result(5).password for future in waiting} == {"password-1"}


def test_refused_ones_are_replaced_once_for_all_threads_unless_they_are_new(fake_time: FakeTime) -> None:
    mint = Mint()
    source = MintedCredentials(mint, fake_time.clock)
    first = source()
    assert source.renew(first) == first, "a minute old at least"
    fake_time.elapsed += 60
    assert {source.renew(first).password for _ in range(5)} == {"password-2"}
    assert mint.count == 2


def test_every_secret_is_reported_before_it_is_given(fake_time: FakeTime) -> None:
    reported: list[str] = []
    source = ReportedCredentials(MintedCredentials(Mint(), fake_time.clock), reported.append)
    first = source()
    fake_time.elapsed += 60
    second = source.renew(first)
    source()
    assert reported == [*first.secrets(), *second.secrets()]


# -- a client with such credentials ---------------------------------------------------------------------------------


def accepts(registry: HostileRegistry, passwords: set[str], header: str = "Basic realm=x") -> None:
    """Lets who shows one of ``passwords`` by Basic list the tags."""
    wanted = {Credentials("AWS", password).basic for password in passwords}

    def response(request: Request) -> Raw:
        if request.header("authorization") in wanted:
            return json_reply({"tags": ["a"]})
        return errors_reply(401, "DENIED", headers=[("WWW-Authenticate", header)])

    registry.on("GET", TAGS, response)


def test_a_password_that_ends_in_mid_run_is_replaced_after_the_401(registry, client_of, fake_time: FakeTime) -> None:
    mint = Mint()
    client = client_of(registry, MintedCredentials(mint, fake_time.clock))
    accepts(registry, {"password-1"})
    assert client.list_tags(REPOSITORY).tags == ("a",)
    fake_time.elapsed += 100
    accepts(registry, {"password-2"})
    assert client.list_tags(REPOSITORY).tags == ("a",)
    assert mint.count == 2


def test_when_the_new_one_is_refused_too_it_ends(registry, client_of, fake_time: FakeTime) -> None:
    mint = Mint()
    client = client_of(registry, MintedCredentials(mint, fake_time.clock))
    accepts(registry, {"password-1"})
    client.list_tags(REPOSITORY)
    fake_time.elapsed += 100
    accepts(registry, set())
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            client.list_tags(REPOSITORY)
    assert mint.count == 2


def test_a_token_service_that_refuses_the_old_password_gets_the_new_one(
    registry, client_of, fake_time: FakeTime
) -> None:
    mint = Mint()
    good = {"now": Credentials("AWS", "password-1").basic}

    def token(request: Request) -> Raw:
        if request.header("authorization") == good["now"]:
            return json_reply({"token": f"bearer-{mint.count}", "expires_in": 60})
        return errors_reply(401, "UNAUTHORIZED")

    def tags(request: Request) -> Raw:
        if request.header("authorization") == f"Bearer bearer-{mint.count}":
            return json_reply({"tags": ["a"]})
        return errors_reply(401, "X", headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')])

    registry.on("GET", "/token", token)
    registry.on("GET", TAGS, tags)
    client = client_of(registry, MintedCredentials(mint, fake_time.clock))
    client.list_tags(REPOSITORY)
    fake_time.elapsed += 100
    good["now"] = Credentials("AWS", "password-2").basic
    client.list_tags(REPOSITORY)
    assert len(registry.asked("GET", "/token")) == 3, "refused once, and tried once with the new password"
    good["now"] = ""
    fake_time.elapsed += 55
    with pytest.raises(AuthenticationFailed):
        client.list_tags(REPOSITORY)
    assert len(registry.asked("GET", "/token")) == 4, "a password made just now is not replaced"


def test_a_bearer_token_that_is_used_as_it_is_can_be_minted_too(registry, client_of, fake_time: FakeTime) -> None:
    made: list[str] = []

    def mint() -> Minted:
        made.append(f"ready-{len(made)}")
        return Minted(Credentials(registry_token=made[-1]), 1000)

    def tags(request: Request) -> Raw:
        if request.header("authorization") == "Bearer ready-1":
            return json_reply({"tags": ["a"]})
        return errors_reply(401, "X", headers=[("WWW-Authenticate", "Bearer realm=y")])

    registry.on("GET", TAGS, tags)
    source = MintedCredentials(mint, fake_time.clock)
    source()
    fake_time.elapsed += 100
    assert client_of(registry, source).list_tags(REPOSITORY).tags == ("a",)
    assert made == ["ready-0", "ready-1"]


# -- clouds whose credentials need no helper ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credentials", "basic"),
    [
        (Credentials("_json_key", '{\n  "type": "service_account",\n  "private_key": "-----BEGIN…"\n}'), True),
        (Credentials("oauth2accesstoken", "ya29.access"), True),
        (Credentials("00000000-0000-0000-0000-000000000000", "refresh.jwt.acr"), True),
        (Credentials(identity_token="refresh.jwt.acr"), False),
    ],
    ids=["Google, a key", "Google, an access token", "Azure, as a password", "Azure, as an identity token"],
)
def test_credentials_of_other_clouds_go_to_the_token_service_as_they_are(
    registry, client_of, credentials: Credentials, basic: bool
) -> None:
    challenge = errors_reply(401, "X", headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')])
    registry.on("GET", TAGS, challenge, json_reply({"tags": ["a"]}))
    registry.on("GET" if basic else "POST", "/token", json_reply({"access_token": "bearer-1"}))
    assert client_of(registry, credentials).list_tags(REPOSITORY).tags == ("a",)
    asked = registry.asked(path="/token")[0]
    if basic:
        assert asked.header("authorization") == credentials.basic
    else:
        assert asked.header("authorization") is None
        assert b"grant_type=refresh_token&refresh_token=refresh.jwt.acr" in asked.body
    assert registry.asked("GET", TAGS)[-1].header("authorization") == "Bearer bearer-1"
