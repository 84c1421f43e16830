"""What the first response of a registry teaches is learned once: by all threads, and by the processes that follow."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from registry_sync.errors import AuthenticationFailed, RealmRefused, RepositoryUnavailable, ServerUnavailable
from registry_sync.oci.client import RegistryClient
from support.guarded import BASIC, TAG_LIST, TAGS, USER, challenge, guarded
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply
from support.oci import REPOSITORY

pytestmark = pytest.mark.rule("A2.9")
THREADS = 20


def list_in_threads(client: RegistryClient) -> None:
    ready = threading.Barrier(THREADS)

    def list_once(_number: int) -> None:
        ready.wait(5)
        assert client.list_tags(REPOSITORY).tags == ("a",)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(list_once, range(THREADS)))


def refused_count(registry: HostileRegistry) -> int:
    return sum(request.header("authorization") is None for request in registry.asked(path=TAGS))


def learned_from(registry: HostileRegistry, client: RegistryClient) -> Mapping[str, Any]:
    """As it comes to another process."""
    client.list_tags(REPOSITORY)
    learned = client.learned()
    registry.requests.clear()
    found: dict[str, Any] = json.loads(json.dumps(learned))
    return found


def test_twenty_threads_are_refused_once_and_get_one_token(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    list_in_threads(client_of(registry, USER))
    assert (refused_count(registry), len(registry.asked(path="/token"))) == (1, 1)


def test_a_host_that_is_down_is_not_waited_for_by_one_thread_after_the_other(registry, client_of) -> None:
    all_at_once = threading.Barrier(THREADS - 1)

    def down(_request: Request) -> Raw:
        if len(registry.asked(path=TAGS)) > 1:
            all_at_once.wait(5)
        return errors_reply(502, "UNAVAILABLE")

    registry.on("GET", TAGS, down)
    client = client_of(registry, max_attempts=1)
    with ThreadPoolExecutor(THREADS) as pool:
        listings = [pool.submit(client.list_tags, REPOSITORY) for _ in range(THREADS)]
        assert {type(listing.exception(10)) for listing in listings} == {ServerUnavailable}


def test_another_process_begins_with_the_challenge_and_is_not_refused(registry, client_of) -> None:
    guarded(registry, f"{registry.base}/token", scope=f"repository:{REPOSITORY}:pull")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    learned = learned_from(registry, client_of(registry, USER))
    client = client_of(registry, USER)
    client.begin_with(learned)
    list_in_threads(client)
    assert (refused_count(registry), len(registry.asked(path="/token"))) == (0, 1)
    assert client.learned() == learned


def test_what_is_learned_holds_no_secret(registry, client_of) -> None:
    said = f'Bearer realm="{registry.base}/token",service="s",error="invalid_token",error_description="token-7"'
    registry.on("GET", TAGS, challenge(said), TAG_LIST)
    registry.on("GET", "/token", json_reply({"token": "good-token"}))
    learned = learned_from(registry, client_of(registry, USER))
    assert learned == {
        "scheme": "bearer",
        "realm": f"{registry.base}/token",
        "service": "s",
        "sent_by": f"{registry.base}{TAGS}",
        "has_basic_too": False,
    }


def test_a_registry_that_requests_nothing_is_asked_by_all_threads_at_once(registry, client_of) -> None:
    registry.on("GET", TAGS, TAG_LIST)
    learned = learned_from(registry, client_of(registry))
    assert learned == {}
    all_at_once = threading.Barrier(THREADS)

    def together(_request: Request) -> Raw:
        all_at_once.wait(5)
        return TAG_LIST

    registry.on("GET", TAGS, together)
    client = client_of(registry)
    client.begin_with(learned)
    list_in_threads(client)


def test_a_client_that_has_heard_nothing_has_learned_nothing(registry, client_of) -> None:
    assert client_of(registry).learned() is None


def test_basic_is_sent_at_once(registry, client_of) -> None:
    registry.on(
        "GET",
        TAGS,
        lambda request: TAG_LIST if request.header("authorization") == BASIC else challenge('Basic realm="x"'),
    )
    learned = learned_from(registry, client_of(registry, USER))
    client = client_of(registry, USER)
    client.begin_with(learned)
    list_in_threads(client)
    assert refused_count(registry) == 0


@pytest.mark.parametrize("status", [404, 503])
def test_a_token_service_that_has_moved_since_is_found_again(registry, other_host, client_of, status: int) -> None:
    guarded(registry, f"{other_host.base}/token")
    other_host.on("GET", "/token", json_reply({"token": "good"}))
    learned = learned_from(registry, client_of(registry))
    other_host.on("GET", "/token", errors_reply(status, "GONE"))
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client = client_of(registry)
    client.begin_with(learned)
    list_in_threads(client)
    assert client.learned() != learned


def test_a_handed_on_realm_gets_no_password_that_a_challenge_would_not(registry, other_host, client_of) -> None:
    guarded(registry, f"{other_host.base}/token")
    other_host.on("GET", "/token", json_reply({"token": "good"}))
    learned = learned_from(registry, client_of(registry))
    other_host.requests.clear()
    client = client_of(registry, USER)
    client.begin_with(learned)
    with pytest.raises(RealmRefused):
        client.list_tags(REPOSITORY)
    assert other_host.requests == []


@pytest.mark.parametrize(("credentials", "error"), [(USER, AuthenticationFailed), (None, RepositoryUnavailable)])
def test_credentials_that_are_refused_meanwhile_are_shown_to_the_token_service_once(
    registry, client_of, credentials, error: type[Exception]
) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    learned = learned_from(registry, client_of(registry, credentials))
    registry.on("GET", "/token", errors_reply(401, "UNAUTHORIZED"))
    client = client_of(registry, credentials)
    client.begin_with(learned)
    with pytest.raises(error):
        client.list_tags(REPOSITORY)
    assert len(registry.asked(path="/token")) == 1


@pytest.mark.parametrize(
    "learned",
    [
        None,
        {"scheme": "bearer"},
        {"scheme": "bearer", "sent_by": "no URL", "has_basic_too": False},
        {"scheme": "bearer", "realm": "::", "sent_by": "http://127.0.0.1/", "has_basic_too": False},
        {"scheme": "bearer", "sent_by": "http://127.0.0.1/", "has_basic_too": False},
    ],
    ids=["nothing", "cut off", "no URL", "no realm that is a URL", "no realm"],
)
def test_what_cannot_be_used_costs_one_refusal(registry, client_of, learned: Mapping[str, Any] | None) -> None:
    guarded(registry, f"{registry.base}/token")
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client = client_of(registry, USER)
    client.begin_with(learned)
    assert client.list_tags(REPOSITORY).tags == ("a",)
    assert (refused_count(registry), len(registry.asked(path="/token"))) == (1, 1)
