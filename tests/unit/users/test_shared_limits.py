"""Failed logins of several processes, counted together, and what is written for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.db.login_failures import LoginFailureStore
from registry_sync.errors import DatabaseUnavailable
from registry_sync.users.checked_logins import CheckedLogins
from registry_sync.users.login_limits import PER_ACCOUNT, PER_ACCOUNT_AND_ADDRESS, PER_ADDRESS
from registry_sync.users.shared_limits import LoginLimits, SharedFailures, TooManyFailedLogins
from support.ready_databases import ready_database
from support.statements import listening

RIGHT = "her password"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as opened:
        yield opened


@contextmanager
def insertions() -> Iterator[list[str]]:
    """The transactions that add rows, meanwhile."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("INSERT"):
            found.append(statement)

    with listening("before_cursor_execute", note):
        yield found


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


def process(store: Callable[[], LoginFailureStore]) -> CheckedLogins[str]:
    """As one process has it."""

    async def login(name: str, password: str) -> str | None:
        await asyncio.sleep(0)
        return name if password == RIGHT else None

    return CheckedLogins(login, LoginLimits(SharedFailures(store, in_thread)))


async def outcome(logins: CheckedLogins[str], name: str, password: str, address: str = "192.0.2.1") -> str:
    try:
        return "right" if await logins(name, password, address) else "wrong"
    except TooManyFailedLogins:
        return "refused"


def test_processes_count_together(database: Database) -> None:
    async def story() -> list[str]:
        several = [process(lambda: database.login_failures) for _ in range(4)]
        return [await outcome(several[number % 4], "anna", f"guess {number}") for number in range(12)]

    burst = PER_ACCOUNT_AND_ADDRESS.burst
    assert asyncio.run(story()) == ["wrong"] * burst + ["refused"] * (12 - burst)


def test_an_address_that_guesses_many_accounts_at_many_processes_is_refused(database: Database) -> None:
    async def story() -> list[str]:
        several = [process(lambda: database.login_failures) for _ in range(4)]
        return [await outcome(several[number % 4], f"user {number}", "x") for number in range(PER_ADDRESS.burst + 5)]

    assert asyncio.run(story()).count("wrong") == PER_ADDRESS.burst


def test_an_account_that_many_addresses_guess_at_many_processes_is_refused(database: Database) -> None:
    async def story() -> list[str]:
        several = [process(lambda: database.login_failures) for _ in range(4)]
        return [
            await outcome(several[number % 4], "anna", f"guess {number}", f"192.0.2.{number}")
            for number in range(PER_ACCOUNT.burst + 5)
        ]

    assert asyncio.run(story()).count("wrong") == PER_ACCOUNT.burst


def test_right_logins_and_refused_ones_write_nothing(database: Database) -> None:
    async def story() -> None:
        logins = process(lambda: database.login_failures)
        for number in range(20):
            assert await outcome(logins, f"user {number}", RIGHT) == "right"
        assert await outcome(logins, "anna", RIGHT) == "right"

    async def refused(logins: CheckedLogins[str]) -> None:
        for number in range(20):
            await outcome(logins, "ben", f"guess {number}")

    with insertions() as right:
        asyncio.run(story())
    assert right == []
    logins = process(lambda: database.login_failures)
    with insertions() as wrong:
        asyncio.run(refused(logins))
    assert len(wrong) == PER_ACCOUNT_AND_ADDRESS.burst


def test_what_fails_at_once_is_written_together(database: Database) -> None:
    async def story() -> list[str]:
        logins = process(lambda: database.login_failures)
        return await asyncio.gather(*(outcome(logins, f"user {number}", "x") for number in range(25)))

    with insertions() as statements:
        assert asyncio.run(story()) == ["wrong"] * 25
    assert len(statements) < 10


def test_no_name_is_stored(database: Database, tmp_path: Path) -> None:
    async def story() -> None:
        await outcome(process(lambda: database.login_failures), "my secret by mistake", "x")

    asyncio.run(story())
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("registry_sync.db*"))
    assert b"by mistake" not in stored
    assert b"192.0.2.1" not in stored


def test_without_its_database_a_process_counts_alone(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> LoginFailureStore:
        raise DatabaseUnavailable("the metadata database does not respond")

    async def story() -> list[str]:
        logins = process(gone)
        assert await outcome(logins, "carla", RIGHT) == "right"
        return [await outcome(logins, "anna", f"guess {number}") for number in range(8)]

    burst = PER_ACCOUNT_AND_ADDRESS.burst
    assert asyncio.run(story()) == ["wrong"] * burst + ["refused"] * (8 - burst)
    assert [record.getMessage() for record in caplog.records] == [
        "failed logins are counted by each process alone: the metadata database does not respond"
    ]
