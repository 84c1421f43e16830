"""What a task holds in memory while it records a large listing, or takes the blobs of a large plan: little for each."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from sqlalchemy import insert, select

from registry_sync.db.database import Database
from registry_sync.db.tables import blobs, run_blobs
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import ListedTag, RequiredBlob
from support.metadata import LISTED_AT, open_run

COUNT = 20_000


def peak_bytes(act: Callable[[], object]) -> int:
    """How much more was allocated at once than before; what ``act`` returns included."""
    tracemalloc.start()
    try:
        value = act()
        _, peak = tracemalloc.get_traced_memory()
        del value
        return peak
    finally:
        tracemalloc.stop()


def test_a_task_that_is_alone_takes_all_blobs_of_a_plan_and_holds_little_of_each(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    needed = [RequiredBlob(Digest(f"sha256:{number:064x}"), number % 997, "text/plain") for number in range(COUNT)]
    with database.writing() as connection:
        common = {"media_type": "text/plain", "is_foreign": False}
        new = [{"digest": one.digest, "size_bytes": one.size_bytes, "created_at": utc_now()} for one in needed]
        connection.execute(insert(blobs), [{**one, **common} for one in new])
        ids = {row.digest: row for row in connection.execute(select(blobs.c.id, blobs.c.digest, blobs.c.size_bytes))}
        planned = [
            {"sync_run_id": run.id, "blob_id": row.id, "shard": 0, "size_bytes": row.size_bytes} for row in ids.values()
        ]
        connection.execute(insert(run_blobs), [{**one, **common} for one in planned])
    database.runs.take_blobs(run.id, 1, may_take_over=False)  # statements are built once

    assert peak_bytes(lambda: database.runs.take_blobs(run.id, 0, may_take_over=False)) < 250 * COUNT
    database.runs.give_back_blobs(run.id, 0)
    taken = database.runs.take_blobs(run.id, 0, may_take_over=False)
    assert taken is not None
    assert list(taken.blobs) == sorted(needed, key=lambda blob: (-blob.size_bytes, blob.digest))
    assert database.runs.take_blobs(run.id, 0, may_take_over=False) is None


def test_a_listing_is_written_as_it_is_read(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    digest = Digest.of(b"a manifest")
    tags = [ListedTag(TagName(f"nightly-{number:06}"), digest, 0) for number in range(COUNT)]
    database.runs.record_listing(run.id, LISTED_AT, tags[:10])

    assert peak_bytes(lambda: database.runs.record_listing(run.id, LISTED_AT, tags)) < 100 * COUNT
    assert len(database.runs.tags_of_shard(run.id, 0)) == COUNT
