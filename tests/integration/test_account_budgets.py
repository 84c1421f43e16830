"""Two fleets at once on one account that allows a hundred pulls in a window: nobody is refused, and nobody starves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from registry_sync.db.budget_leases import AccountBudgetStore
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import RateLimited
from registry_sync.hooks.account_budgets import DatabaseBudget
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support.limited_registry import LIMIT, LimitedRegistry, StandingTime
from support.memory_registry import MemoryRegistry
from support.mirrors import Fleet, small_repository
from support.syncing import Installation

ACCOUNT = "limited anonymous"


def fleet_of(
    here: Installation,
    limited: LimitedRegistry,
    registry: MemoryRegistry,
    time: StandingTime,
    name: str,
    *,
    mirrors: int = 15,
) -> Fleet:
    repositories = [f"{name}/app-{number:02}" for number in range(mirrors)]
    fleet = Fleet(here, registry, repositories).fill(tags=5, first_seed=100 * ord(name[0]))
    budget = DatabaseBudget(AccountBudgetStore(here.database, time.now), ACCOUNT, clock=time.clock)
    client = RegistryClient(
        RemoteSpec.parse("any", limited.server.base, "a").url, None, ClientOptions(), clock=time.clock, budget=budget
    )

    @contextmanager
    def connect(remote: RemoteSpec) -> Iterator[tuple[RegistryClient, RemoteSpec]]:
        yield client.sharing(client.options), remote

    fleet.url, fleet.connect, fleet.on_pause = limited.server.base, connect, time.sleep
    fleet.on_round = budget.begin_round
    fleet.options = {name: {"download_concurrency": 1} for name in repositories}
    fleet.closing = (budget.release, client.close)
    return fleet


def synced_to_the_end(fleet: Fleet, time: StandingTime) -> str:
    """Repeats the task as Airflow does after a reschedule; the outcome of all mirrors."""
    for _ in range(200):
        synced = fleet.sync(dag_id=fleet.repositories[0].split("/")[0])
        if synced.wait_seconds is None:
            break
        time.sleep(synced.wait_seconds + 1)
    for close in fleet.closing:
        close()
    return str(synced)


def test_threads_of_a_client_that_knows_nothing_yet_stop_at_the_floor(here: Installation) -> None:
    """Reports arrive out of order, and the first pulls are not made before the first of them."""
    time, floor = StandingTime(), 60
    with MemoryRegistry() as registry:
        limited = LimitedRegistry(registry, time, tells=True)
        with limited.server:
            content = small_repository(7, tags=90)
            registry.add("one/app", content)
            budget = DatabaseBudget(AccountBudgetStore(here.database, time.now), ACCOUNT, floor=floor, clock=time.clock)
            url = RemoteSpec.parse("any", limited.server.base, "a").url
            options = ClientOptions(rate_limit_floor=floor)
            client = RegistryClient(url, None, options, clock=time.clock, budget=budget)

            def pull(digest: Digest) -> bool:
                try:
                    client.get_manifest(RepositoryName("one/app"), digest)
                except RateLimited:
                    return False
                return True

            with ThreadPoolExecutor(20) as pool:
                pulled = list(pool.map(pull, content.manifests))
            budget.release()
            client.close()
    assert LIMIT - floor - 20 < sum(pulled) == len(limited.pulled) <= LIMIT - floor
    assert limited.refused_count == 0


@pytest.mark.parametrize(("tells", "most_refused"), [(True, 0), (False, 2)])
def test_two_fleets_at_once_wait_their_turn_and_none_starves(
    here: Installation, tells: bool, most_refused: int
) -> None:
    time = StandingTime()
    with MemoryRegistry() as registry:
        limited = LimitedRegistry(registry, time, tells=tells)
        with limited.server:
            fleets = [fleet_of(here, limited, registry, time, name) for name in ("one", "two")]
            with ThreadPoolExecutor(2) as pool:
                ended = list(pool.map(lambda fleet: synced_to_the_end(fleet, time), fleets))
    assert ended == ["15 changed", "15 changed"]
    assert len(limited.pulled) == 2 * 15 * 5, "150 pulls, of which a window allows a hundred"
    assert limited.refused_count <= most_refused


def test_mirrors_that_wait_for_pulls_are_synced_in_the_order_as_declared(here: Installation) -> None:
    time = StandingTime()
    with MemoryRegistry() as registry:
        limited = LimitedRegistry(registry, time, tells=True)
        with limited.server:
            fleet = fleet_of(here, limited, registry, time, "one", mirrors=30)
            assert synced_to_the_end(fleet, time) == "30 changed"
    order = list(dict.fromkeys(path for _, path in limited.pulled))
    assert len(order) == 30
    assert order == sorted(order)
    assert len(limited.pulled) == 30 * 5
    assert limited.refused_count == 0


def test_half_of_the_pulls_is_left_to_what_is_important_and_comes_late(here: Installation) -> None:
    time = StandingTime()
    with MemoryRegistry() as registry:
        limited = LimitedRegistry(registry, time, tells=True)
        with limited.server:
            AccountBudgetStore(here.database, time.now).take_pulls(ACCOUNT, "last week", priority=5)
            ordinary = fleet_of(here, limited, registry, time, "one")
            synced = ordinary.sync(dag_id="one")
            assert synced.wait_seconds is not None
            assert len(limited.pulled) <= LIMIT // 2 + 10
            important = fleet_of(here, limited, registry, time, "two")
            important.repositories = important.repositories[:8]
            budget = DatabaseBudget(AccountBudgetStore(here.database, time.now), ACCOUNT, clock=time.clock)
            budget.priority = 5
            client = RegistryClient(
                RemoteSpec.parse("any", limited.server.base, "a").url, clock=time.clock, budget=budget
            )

            @contextmanager
            def connect(remote: RemoteSpec) -> Iterator[tuple[RegistryClient, RemoteSpec]]:
                yield client.sharing(client.options), remote

            important.connect, important.on_round = connect, budget.begin_round
            assert str(important.sync(dag_id="two")) == "8 changed"
            for close in (*ordinary.closing, *important.closing, client.close):
                close()
    assert limited.refused_count == 0
