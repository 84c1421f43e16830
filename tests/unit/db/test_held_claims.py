"""Who downloads what others need as well, and when somebody else may do so, in a time that passes when it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from registry_sync.db.download_claims import LAPSED_SECONDS, DownloadClaimStore
from registry_sync.db.held_claims import LONGEST_WAIT_SECONDS, HeldClaims
from registry_sync.domain.digests import Digest
from registry_sync.errors import DatabaseUnavailable
from support.ready_databases import ready_database

BLOBS = [Digest.of(f"blob {number}".encode()) for number in range(4)]


class Time:
    """Seconds that pass when they are told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as opened:
        yield opened


@contextmanager
def dead_holder(database: Database, digests: list[Digest]) -> Iterator[HeldClaims]:
    """The claims of a process that shows no more that it lives, as after ``kill -9``."""
    claims = HeldClaims(database)
    claims.close()
    assert claims.take_all(digests) == set()
    yield claims


def test_what_another_one_downloads_is_left_to_it_until_it_lets_go(database: Database) -> None:
    with HeldClaims(database) as first, HeldClaims(database) as second:
        assert first.take_all(BLOBS[:2]) == set()
        assert second.take_all(BLOBS) == set(BLOBS[:2])
        assert first.take_all(BLOBS) == set(BLOBS[2:])
        first.release(BLOBS[:1])
        assert second.take_all(BLOBS) == {BLOBS[1]}


def test_claims_end_with_the_block_also_when_it_fails(database: Database) -> None:
    def fail() -> None:
        with HeldClaims(database) as first:
            first.take_all(BLOBS)
            raise ValueError("by the test")

    with pytest.raises(ValueError, match="by the test"):
        fail()
    with HeldClaims(database) as second:
        assert second.take_all(BLOBS) == set()


def test_the_lease_of_a_process_that_died_is_taken_over_when_it_has_stood_still(database: Database) -> None:
    time = Time()
    with dead_holder(database, BLOBS), HeldClaims(database, clock=time) as next_one:
        assert next_one.take_all(BLOBS) == set(BLOBS)
        time.now = LAPSED_SECONDS
        assert next_one.take_all(BLOBS) == set(BLOBS)
        time.now = LAPSED_SECONDS + 0.1
        assert next_one.take_all(BLOBS) == set()


def test_the_lease_of_a_process_that_lives_is_not_taken_over(database: Database) -> None:
    time = Time()
    with dead_holder(database, BLOBS), HeldClaims(database, clock=time) as other:
        other.take_all(BLOBS)
        for _ in range(3):
            time.now += LAPSED_SECONDS + 0.1
            with database.reading() as connection:
                holder = connection.exec_driver_sql("SELECT holder FROM blob_downloads").scalar()
            database.download_claims.beat(str(holder))
            assert other.take_all(BLOBS) == set(BLOBS)


def test_without_a_database_that_can_be_written_each_downloads_for_itself(database: Database) -> None:
    with HeldClaims(database) as first:
        first.take_all(BLOBS)
        with database.writing() as connection:
            connection.exec_driver_sql("DROP TABLE blob_downloads")
        assert HeldClaims(database).take_all(BLOBS) == set()


def test_those_that_are_waited_for_come_as_they_are_let_go(database: Database) -> None:
    with HeldClaims(database) as first, HeldClaims(database) as second:
        first.take_all(BLOBS[:2])
        second.take_all(BLOBS)
        first.release(BLOBS[:1])
        waiting = second.awaited(BLOBS[:2], lambda digest: digest)
        assert next(waiting) == [BLOBS[0]]
        first.release(BLOBS[1:])
        assert next(waiting) == [BLOBS[1]]
        assert list(waiting) == []


class Impatient(HeldClaims):
    """Claims whose time passes when they wait."""

    def __init__(self, database: Database, time: Time) -> None:
        super().__init__(database, clock=time)
        self._time = time

    def pause(self) -> None:
        """Waits for a second, in which others show that they live."""
        self._time.now += 1.0
        with self._store._transactions.writing() as connection:
            connection.exec_driver_sql("UPDATE blob_downloads SET beat = beat + 1")


@pytest.mark.slow
def test_whoever_lives_is_waited_for_but_not_for_ever(database: Database) -> None:
    time = Time()
    with dead_holder(database, BLOBS), Impatient(database, time) as second:
        assert list(second.awaited(BLOBS, lambda digest: digest)) == [BLOBS]
    assert time.now == LONGEST_WAIT_SECONDS


def test_nobody_is_waited_for_once_it_is_over(database: Database) -> None:
    time = Time()
    with dead_holder(database, BLOBS), Impatient(database, time) as second:
        assert list(second.awaited(BLOBS, lambda digest: digest, lambda: time.now >= 3)) == []
    assert time.now == 3


def test_claims_that_the_database_did_not_end_are_ended_the_next_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be kept alive as long as the process downloads anything."""

    def refuse(*_given: object) -> None:
        raise DatabaseUnavailable("by the test")

    with HeldClaims(database) as first, HeldClaims(database) as second:
        first.take_all(BLOBS)
        with monkeypatch.context() as without_database:
            without_database.setattr(DownloadClaimStore, "release_all", refuse)
            first.release(BLOBS[:2])
        assert second.take_all(BLOBS) == set(BLOBS)
        assert first.take(BLOBS[1]), "it is wanted again"
        first.release(BLOBS[2:3])
        assert second.take_all(BLOBS) == {BLOBS[1], BLOBS[3]}
