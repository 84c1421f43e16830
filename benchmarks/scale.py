"""What the stages of a sync cost at 50,000 tags and 100,000 units: time and memory.

Each stage runs in a process of its own, as a task does, against a registry in the memory of another process, on an
embedded database and on PostgreSQL. Memory is what a process holds at most above the interpreter with Airflow's part of
a task imported.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_sync.domain.quantities import format_count
from support.images import ContentBuilder, RepositoryContent

if TYPE_CHECKING:  # imported where memory is measured, in a process of its own
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.domain.runs import SyncRun
    from registry_sync.oci.client import RegistryClient

IMAGES_PER_INDEX, LAYERS_PER_IMAGE = 4, 6
#: An index, its images, their configs and own layers, and the tag.
UNITS_PER_TAG = 2 + IMAGES_PER_INDEX * (1 + 1 + LAYERS_PER_IMAGE)
MIB = 1024 * 1024


@dataclass(frozen=True)
class StageCost:
    """What one stage took; of several tasks the sum of the times and requests, and the memory of the largest.

    ``cpu_seconds`` are the task's own, without the registry's and PostgreSQL's. ``peak_mib`` is resident memory.
    """

    database: str
    content: str
    stage: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    request_count: int

    def __add__(self, other: StageCost) -> StageCost:
        return replace(
            self,
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_mib=max(self.peak_mib, other.peak_mib),
            request_count=self.request_count + other.request_count,
        )

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.content} | {self.stage} | {self.seconds:.1f} | {self.cpu_seconds:.1f} "
            f"| {self.peak_mib:.0f} | {self.request_count:,} |"
        )


@dataclass(frozen=True)
class DatabaseSize:
    """How large a database is after ``content`` was synced so often: rows of all tables, and bytes with its indexes."""

    database: str
    content: str
    sync_count: int
    row_count: int
    size_bytes: int

    def __str__(self) -> str:
        syncs = format_count(self.sync_count, "sync")
        return f"{self.database}, {self.content}, {syncs}: {self.row_count:,} rows, {self.size_bytes / MIB:.0f} MiB"


def table(costs: list[StageCost]) -> str:
    """The costs as a table of Markdown."""
    head = "| database | content | stage | s | s of the processor | MiB | requests |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, *map(str, costs)])


def many_tags(count: int, per_image: int = 10) -> RepositoryContent:
    """So many tags, ``per_image`` on each image; the images share a layer."""
    build = ContentBuilder(seed=11)
    shared = build.blob(500)
    digests = [build.image([shared, build.blob(300)]) for _ in range(max(1, count // per_image))]
    for number in range(count):
        build.tag(f"nightly-{number:06}", digests[number % len(digests)])
    return build.content()


def many_units(count: int) -> RepositoryContent:
    """About so many units: each tag is an index of images whose layers are their own."""
    build = ContentBuilder(seed=12)
    for number in range(max(1, count // UNITS_PER_TAG)):
        images = [
            build.image([build.blob(100) for _ in range(LAYERS_PER_IMAGE)], architecture=f"arch{image}")
            for image in range(IMAGES_PER_INDEX)
        ]
        build.tag(f"release-{number:06}", build.index(images))
    return build.content()


def moved(content: RepositoryContent) -> RepositoryContent:
    """``content`` with its first tag on the manifest of its last."""
    names = list(content.tags)
    return replace(content, tags={**content.tags, names[0]: content.tags[names[-1]]})


# -- the registry, in a process of its own ------------------------------------------------------------------------


#: What becomes of the content of a repository that was served.
Change = Callable[[RepositoryContent], RepositoryContent]


def _serve(contents: Callable[[], Iterator[tuple[str, RepositoryContent]]], pipe: Connection) -> None:
    from support.memory_over_http import over_http
    from support.memory_registry import MemoryRegistry

    registry = MemoryRegistry()
    served = dict(contents())
    for name, content in served.items():
        registry.serve(name, content)
    with over_http(registry) as server:
        pipe.send(server.base)
        while (change := pipe.recv()) is not None:
            names, changed = change
            for name in names:
                registry.serve(name, changed(served[name]))
            pipe.send(registry.log().count())
            registry.reset_counts()


@dataclass(frozen=True)
class ServedContent:
    """A registry in the memory of another process."""

    url: str
    pipe: Connection

    def change(self, names: Sequence[str], change: Change) -> None:
        """Changes what the repositories of these names hold."""
        self.pipe.send((names, change))
        self.pipe.recv()

    def count_requests(self) -> int:
        """The requests since it was last asked."""
        self.pipe.send(((), moved))
        count: int = self.pipe.recv()
        return count


@contextmanager
def serving(contents: Callable[[], Iterator[tuple[str, RepositoryContent]]]) -> Iterator[ServedContent]:
    """Serves the repositories of ``contents``, by name, for the time of the block."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(contents, theirs), daemon=True)
    process.start()
    try:
        yield ServedContent(ours.recv(), ours)
    finally:
        ours.send(None)
        process.join(10)


def _one(name: str, make: Callable[[int], RepositoryContent], count: int) -> Iterator[tuple[str, RepositoryContent]]:
    yield name, make(count)


# -- a stage, in a process of its own -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a stage finds what it works on: the URL of the database, a folder, the URL of the registry."""

    database: str
    folder: str
    registry: str
    run_id: str = "first"


def _memory_mib(name: str) -> float:
    """A number of ``/proc/self/status`` in MiB: ``VmRSS``, or ``VmHWM`` for the peak."""
    found = re.search(rf"^{name}:\s+([0-9]+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


#: What a task of Airflow has imported.
_IMPORTED = ("airflow.dag_processing.dagbag", "airflow.sdk.execution_time.task_runner")


def _measured(act: Callable[[Place], Any], place: Place, pipe: Connection) -> None:
    """Runs ``act`` with Airflow imported, and sends its value, its times and its memory."""
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    before = _memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    wall, cpu = time.perf_counter(), time.process_time()
    value = act(place)
    times = (time.perf_counter() - wall, time.process_time() - cpu)
    pipe.send((value, *times, _memory_mib("VmHWM") - before))


@dataclass(frozen=True)
class Meter:
    """Runs stages and notes what they cost."""

    database: str
    content: str
    costs: list[StageCost]
    registry: ServedContent
    say: Callable[[str], None]

    def run(self, stage: str, acts: Sequence[Callable[[Place], Any]], place: Place) -> list[Any]:
        """Runs the tasks of one stage after one another; their values."""
        values, total = [], None
        for act in acts:
            self.registry.count_requests()
            value, seconds, cpu_seconds, mib = _in_own_process(act, place)
            values.append(value)
            request_count = self.registry.count_requests()
            cost = StageCost(self.database, self.content, stage, seconds, cpu_seconds, mib, request_count)
            total = cost if total is None else total + cost
        if total is not None:
            self.costs.append(total)
            self.say(str(total))
        return values


def _in_own_process(act: Callable[[Place], Any], place: Place) -> tuple[Any, float, float, float]:
    """The value of ``act``, its seconds, those of the processor, and its memory in MiB."""
    # Forked from a process that has imported Airflow, as tasks are: to import it takes longer than many a stage.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(_IMPORTED))
    ours, theirs = server.Pipe()
    process = server.Process(target=_measured, args=(act, place, theirs))
    process.start()
    theirs.close()
    found: tuple[Any, float, float, float] = ours.recv()
    process.join()
    return found


@contextmanager
def _opened(place: Place) -> Iterator[tuple[Database, BlobStore, SyncRun]]:
    """The database, the blob store and the run of a stage."""
    from registry_sync.db.database import Database
    from registry_sync.domain.runs import RunKey
    from registry_sync.hooks.stores import open_blob_store
    from registry_sync.sync.open_run import SyncRequest, open_run

    with Database.connect(place.database) as database:
        request = SyncRequest("app", url=place.registry, upstream_name="app")
        key = RunKey("scale", place.run_id)
        found = database.runs.find(key)
        run = found if found is not None else open_run(database, key, request)
        yield database, open_blob_store(Path(place.folder, "blobs").as_uri()), run


def _client(remote: RemoteSpec) -> RegistryClient:
    from registry_sync.oci.client import RegistryClient
    from registry_sync.oci.http.options import ClientOptions

    return RegistryClient(remote.url, None, ClientOptions(concurrency=remote.download_concurrency))


def ignore(_line: str) -> None:
    """Reports are not shown."""


def _list_tags(place: Place) -> list[int]:
    import registry_sync.operators.list_tags  # noqa: F401  # which a task has imported
    from registry_sync.sync.list_tags import list_tags

    with _opened(place) as (database, _, run), _client(run.remote) as client:
        listed = list_tags(client, database, run, run.remote, max_shards=8, report=ignore)
        return [shard.number for shard in listed.shards]


def _fetch_manifests(shard: int, place: Place) -> None:
    import registry_sync.operators.fetch_manifests  # noqa: F401  # which a task has imported
    from registry_sync.sync.fetch_manifests import fetch_manifests

    with _opened(place) as (database, _, run), _client(run.remote) as client:
        fetch_manifests(client, database, run, run.remote, shard=shard, is_last_try=True, report=ignore)


def _plan_blobs(place: Place) -> list[int]:
    import registry_sync.operators.plan_blobs  # noqa: F401  # which a task has imported
    from registry_sync.sync.plan_blobs import plan_blobs

    with _opened(place) as (database, store, run):
        planned = plan_blobs(store, database, run, max_shards=8, min_shard_bytes=16 * MIB, report=ignore)
        return [shard.number for shard in planned.shards]


def _record_blobs(shard: int, place: Place) -> None:
    """Records the blobs as stored, as the stage does that fetches them, whose bytes are measured elsewhere."""
    with _opened(place) as (database, _, run):
        while taken := database.runs.take_blobs(run.id, shard, may_take_over=False):
            digests = [blob.digest for blob in taken.blobs]
            for start in range(0, len(digests), 500):
                database.contents.mark_stored(digests[start : start + 500], source=run.remote.source)


def _commit_version(place: Place) -> None:
    import registry_sync.operators.commit_version  # noqa: F401  # which a task has imported
    from registry_sync.sync.commit_version import commit_version

    with _opened(place) as (database, _, run):
        assert commit_version(database, run, report=ignore).version is not None


def _sync(meter: Meter, place: Place, suffix: str = "") -> None:
    """A whole sync but for the bytes of its blobs."""
    shards = meter.run(f"list_tags{suffix}", [_list_tags], place)[0]
    meter.run(f"fetch_manifests{suffix}", [partial(_fetch_manifests, shard) for shard in shards], place)
    planned = meter.run(f"plan_blobs{suffix}", [_plan_blobs], place)[0]
    meter.run(f"blobs recorded{suffix}", [partial(_record_blobs, shard) for shard in planned], place)
    meter.run(f"commit_version{suffix}", [_commit_version], place)


#: The databases that are measured, by name.
DATABASES = ("SQLite", "PostgreSQL")


@contextmanager
def databases_of(names: Sequence[str]) -> Iterator[dict[str, Callable[[str], str]]]:
    """By name, what makes the URL of a new migrated database; ``names`` are some of :data:`DATABASES`."""
    from registry_sync.db.database import Database
    from support.postgres import running_postgres

    def migrated(make: Callable[[str], str], name: str) -> str:
        url = make(name)
        with Database.connect(url) as database:
            database.upgrade()
        return url

    with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
        makes: dict[str, Callable[[str], str]] = {"SQLite": lambda name: f"sqlite:///{folder}/{name}.db"}
        if "PostgreSQL" in names:
            makes["PostgreSQL"] = started.enter_context(running_postgres(has_autovacuum=True)).make_database
        yield {name: partial(migrated, makes[name]) for name in names}


def size_of(name: str, content: str, sync_count: int, url: str) -> DatabaseSize:
    """The size of the database at ``url``."""
    from sqlalchemy import func, select, text

    from registry_sync.db.database import Database
    from registry_sync.db.tables import metadata

    with Database.connect(url) as database, database.reading() as connection:
        rows = sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in metadata.sorted_tables
        )
        if url.startswith("sqlite:"):
            asked = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        else:
            asked = "SELECT pg_database_size(current_database())"
        return DatabaseSize(name, content, sync_count, rows, connection.execute(text(asked)).scalar_one())


@dataclass(frozen=True)
class Measured:
    """What was measured so far."""

    costs: list[StageCost] = field(default_factory=list)
    sizes: list[DatabaseSize] = field(default_factory=list)


def measure(
    names: Sequence[str],
    tag_counts: Sequence[int],
    unit_counts: Sequence[int],
    measured: Measured,
    say: Callable[[str], None],
    *,
    tags_per_image: int = 10,
) -> None:
    """Syncs so many tags and units on the databases of ``names``; 0 leaves one out.

    Of two counts the rows where one tag moved say whether that costs what differs, or with all that does not.
    """
    of_tags = f"tags, {tags_per_image} on each image"
    with databases_of(names) as databases, tempfile.TemporaryDirectory() as folder:
        repositories: list[tuple[str, Callable[[int], RepositoryContent], int]] = [
            *((of_tags, partial(many_tags, per_image=tags_per_image), count) for count in tag_counts if count),
            *(("units", many_units, count) for count in unit_counts if count),
        ]
        for what, make, count in repositories:
            content = f"{count:,} {what}"
            with serving(partial(_one, "app", make, count)) as registry:
                places = {
                    name: Place(make_url(f"{what[:4]}_{count}"), f"{folder}/{name}-{what[:4]}-{count}", registry.url)
                    for name, make_url in databases.items()
                }
                for sync_count, suffix in enumerate(("", ", one tag moved"), 1):
                    if suffix:
                        registry.change(["app"], moved)
                    for name, place in places.items():
                        meter = Meter(name, content, measured.costs, registry, say)
                        _sync(meter, replace(place, run_id=suffix or "first"), suffix)
                        measured.sizes.append(size_of(name, content, sync_count, place.database))
                        say(str(measured.sizes[-1]))
