"""What a fleet of 10,000 repositories costs: syncs in tasks of many mirrors, lists, and the size of its database.

Each task, and each list, runs in a process of its own, as in :mod:`benchmarks.scale`.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scale import MIB, Measured, Meter, Place, databases_of, ignore, serving, size_of
from support.images import ContentBuilder, RepositoryContent

if TYPE_CHECKING:  # imported where memory is measured, in a process of its own
    from registry_sync.domain.runs import SyncRun

#: Mirrors of one task.
CHUNK = 250
#: Of so many repositories the tag of one moves.
_OF_WHICH_ONE_MOVES = 100
_PAGE = 100


def small_repositories(count: int) -> Iterator[tuple[str, RepositoryContent]]:
    """Repositories of one tag on one image, by name."""
    for number in range(count):
        build = ContentBuilder(seed=100_000 + number)
        build.tag("latest", build.image([build.blob(100)]))
        yield f"team/app-{number:05}", build.content()


def released(content: RepositoryContent) -> RepositoryContent:
    """``content`` with its tag on another image, of one more layer."""
    build = ContentBuilder(seed=int(content.tags["latest"][-8:], 16))
    build.tag("latest", build.image([build.blob(100), build.blob(100)]))
    return content.merged(build.content())


def _sync_fleet(names: list[str], place: Place) -> dict[str, int]:
    import registry_sync.operators.sync_mirrors  # noqa: F401  # which a task has imported
    from registry_sync.db.database import Database
    from registry_sync.domain.runs import UNKNOWN_TRIGGER, RunKey
    from registry_sync.domain.settled_mirrors import SettledMirror
    from registry_sync.hooks.shared_clients import SharedClients
    from registry_sync.hooks.stores import open_blob_store
    from registry_sync.sync.mirror_tasks import MirrorSync, MirrorTask
    from registry_sync.sync.open_run import SyncRequest, open_run
    from registry_sync.sync.sync_mirrors import sync_mirrors
    from registry_sync.sync.unchanged_mirrors import expected_run

    with Database.connect(place.database) as database, SharedClients() as clients:

        def request(name: str) -> SyncRequest:
            return SyncRequest(name, url=place.registry, upstream_name=name, include_tags=("latest",))

        def start(name: str, key: RunKey) -> SyncRun:
            return open_run(database, key, request(name))

        def expect(name: str, known: SettledMirror) -> SyncRun | None:
            return expected_run(request(name), known, UNKNOWN_TRIGGER)

        mirrors = [MirrorSync(name, partial(start, name), expect=partial(expect, name)) for name in names]
        synced = sync_mirrors(
            database,
            open_blob_store(Path(place.folder, "blobs").as_uri()),
            mirrors,
            MirrorTask("scale", place.run_id, "sync_mirrors"),
            clients.connect,
            concurrency=8,
            min_shard_bytes=16 * MIB,
            is_last_try=True,
            report=ignore,
        )
        outcomes: dict[str, int] = {}
        for result in synced.results:
            outcomes[result.outcome.value] = outcomes.get(result.outcome.value, 0) + 1
        return outcomes


def _list_over_rest(count: int, place: Place) -> None:
    """Requests the list of repositories page after page; nobody's login is checked."""
    from registry_sync.api.access import READ
    from registry_sync.api.app import create_app
    from support.asgi import ask_app

    _use(place)
    app = create_app()
    app.dependency_overrides[READ[0].dependency] = lambda: None
    path, listed = f"/api/v3/repositories/docker/docker/?limit={_PAGE}", 0
    while path:
        response = ask_app(app, "GET", path, {"authorization": "Bearer of-nobody"})
        assert response.status == 200, response.body
        page = response.json()
        listed += len(page["results"])
        path = (page["next"] or "").partition("/pulp")[2]
    assert listed == count, listed


def _list_by_command(words: Sequence[str], count: int, place: Place) -> None:
    """Runs a command that lists all repositories."""
    from support.commands import run_command

    _use(place)
    with redirect_stdout(io.StringIO()) as printed:
        run_command(*words, "--output", "json")
    assert len(json.loads(printed.getvalue())) == count


def _use(place: Place) -> None:
    """Makes the database that of the settings of this process."""
    os.environ["AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN"] = place.database


def measure(names: Sequence[str], count: int, measured: Measured, say: Callable[[str], None]) -> None:
    """Syncs ``count`` repositories on the databases of ``names``: first, unchanged, 1 % moved; and lists them."""
    content = f"{count:,} repositories"
    with databases_of(names) as databases, tempfile.TemporaryDirectory() as folder:
        for name, make_url in databases.items():
            with serving(partial(small_repositories, count)) as registry:
                place = Place(make_url("fleet"), f"{folder}/{name}-fleet", registry.url)
                meter = Meter(name, content, measured.costs, registry, say)
                for sync_count, stage in enumerate(_passes(meter, count, place), 1):
                    size = size_of(name, f"{content}, {stage}", sync_count * count, place.database)
                    measured.sizes.append(size)
                    say(str(size))
                meter.run(f"list over REST, {_PAGE} a page", [partial(_list_over_rest, count)], place)
                for words in (("repository", "list"), ("fleet", "status")):
                    meter.run(" ".join(words), [partial(_list_by_command, words, count)], place)


def _passes(meter: Meter, count: int, place: Place) -> Iterator[str]:
    """Syncs them all three times; the name of each pass once it has ended."""
    repositories = [f"team/app-{number:05}" for number in range(count)]
    chunks = [repositories[start : start + CHUNK] for start in range(0, count, CHUNK)]
    moving = repositories[::_OF_WHICH_ONE_MOVES]
    for stage, changed in (("first", count), ("unchanged", 0), ("1 % moved", len(moving))):
        if 0 < changed < count:
            meter.registry.change(moving, released)
        outcomes = dict[str, int]()
        acts = [partial(_sync_fleet, chunk) for chunk in chunks]
        for of_task in meter.run(f"sync_mirrors, {stage}", acts, replace(place, run_id=stage)):
            for outcome, found in of_task.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + found
        expected = {"changed": changed, "unchanged": count - changed}
        assert outcomes == {outcome: wanted for outcome, wanted in expected.items() if wanted}, outcomes
        yield stage
