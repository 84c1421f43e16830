"""Pulls noted by a process and written now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from registry_sync.errors import DatabaseUnavailable
from registry_sync.serve.pull_notes import LastPulls
from unit.serve.conftest import PullDesk, client
from unit.serve.test_metrics import PULL
from unit.users.test_login_limits import Clock

TAG = replace(PULL, repository_id="r", digest="sha256:abc")


class Store:
    """Keeps what is written to it; ``is_down`` refuses."""

    def __init__(self) -> None:
        self.written: list[dict[tuple[str, str], object]] = []
        self.forgotten_count = 0
        self.is_down = False
        self.has_written = threading.Event()

    def record(self, pulls: dict[tuple[str, str], object]) -> None:
        if self.is_down:
            raise DatabaseUnavailable("down")
        self.written.append(dict(pulls))
        self.has_written.set()

    def forget(self) -> None:
        self.forgotten_count += 1


@pytest.fixture
def store() -> Store:
    return Store()


Make = Callable[..., LastPulls]


@pytest.fixture
def make(store: Store) -> Make:
    """Pulls that are written when the test says so."""

    def make(**options: object) -> LastPulls:
        return LastPulls(store, **{"write_seconds": 3600.0, **options})  # type: ignore[arg-type]

    return make


def test_requests_are_written_together(store: Store, make: Make) -> None:
    pulls = make()
    later = TAG.at + timedelta(seconds=1)
    for record in (TAG, replace(TAG, at=later), replace(TAG, tag="other", method="HEAD"), replace(TAG, tag=None)):
        pulls.note(record)
    pulls.write()
    assert store.written == [{("r", "latest"): later, ("r", "other"): TAG.at, ("r", "sha256:abc"): TAG.at}]
    pulls.write()
    assert len(store.written) == 1


@pytest.mark.parametrize(
    "record",
    [
        replace(TAG, kind="blobs"),
        replace(TAG, status=404),
        replace(TAG, status=401, repository_id=None),
        replace(TAG, tag=None, method="HEAD"),  # a client that only looks whether it is there
    ],
)
def test_what_is_no_pull_is_not_noted(store: Store, make: Make, record: object) -> None:
    pulls = make()
    pulls.note(record)  # type: ignore[arg-type]
    pulls.write()
    assert store.written == []


def test_what_a_client_has_already_was_asked_for_as_well(store: Store, make: Make) -> None:
    pulls = make()
    pulls.note(replace(TAG, status=304))
    pulls.write()
    assert store.written == [{("r", "latest"): TAG.at}]


def test_the_same_tag_is_written_once_a_minute(store: Store, make: Make) -> None:
    clock = Clock()
    pulls = make(clock=clock)
    for _ in range(2):
        pulls.note(TAG)
        pulls.write()
    assert len(store.written) == 1
    clock.now += 61
    pulls.note(TAG)
    pulls.write()
    assert len(store.written) == 2


def test_what_waits_has_a_bound(store: Store, make: Make) -> None:
    pulls = make(most_waiting=3)
    for number in range(10):
        pulls.note(replace(TAG, tag=f"tag-{number}"))
    pulls.note(replace(TAG, tag="tag-1", at=TAG.at + timedelta(seconds=5)))
    pulls.write()
    ((_, one, _),) = (sorted(written.items()) for written in store.written)
    assert one == (("r", "tag-1"), TAG.at + timedelta(seconds=5))


def test_what_the_database_refuses_is_kept_and_said_once(
    store: Store, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pulls = make(most_waiting=2)
    store.is_down = True
    pulls.note(TAG)
    for _ in range(3):
        pulls.write()
    newer = TAG.at + timedelta(seconds=9)
    pulls.note(replace(TAG, at=newer))
    pulls.note(replace(TAG, tag="other"))
    pulls.write()
    store.is_down = False
    pulls.write()
    assert store.written == [{("r", "latest"): newer, ("r", "other"): TAG.at}]
    assert caplog.text.count("the last pulls cannot be written") == 1


def test_the_thread_writes_now_and_then_and_at_the_end(store: Store, make: Make) -> None:
    pulls = make(write_seconds=0.001)
    pulls.note(TAG)
    assert store.has_written.wait(30)
    pulls.close()
    ending = make()
    ending.note(replace(TAG, tag="last"))
    ending.close()
    assert store.written[-1] == {("r", "last"): TAG.at}


def test_one_that_noted_nothing_ends_at_once(store: Store, make: Make) -> None:
    make().close()
    assert store.written == []


def test_old_pulls_are_forgotten_once_a_day(store: Store, make: Make) -> None:
    clock = Clock()
    pulls = make(clock=clock)
    for _ in range(4):
        pulls.note(TAG)
        pulls.write()
        clock.now += 43_300
    assert store.forgotten_count == 2


def test_what_is_pulled_through_the_app_is_found_in_the_database(desk: PullDesk) -> None:
    pulls = LastPulls(desk.database.last_pulls)

    async def story() -> None:
        app = desk.make(observers=[pulls.note], closing=[pulls.close])
        async with client(app) as http:
            assert (await http.get("/v2/app/manifests/latest")).status_code == 200
            assert (await http.get("/v2/app/manifests/none")).status_code == 404
            assert (await http.get("/v2/team/private/manifests/new")).status_code == 401
        app.close()

    desk.play(story())
    found = {tag.name: tag.last_pulled for tag in desk.database.last_pulls.tags(desk.repository.id).items}
    assert found["latest"] is not None
    assert found["new"] is None
