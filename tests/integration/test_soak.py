"""Programs at once on one PostgreSQL and one blob store until each did its part: syncs of upstreams that change,
collectors with hardly any grace, rollbacks, copies and deletions, verification, and readers who must never miss a byte.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import collect_orphans
from registry_sync.sync.maintenance.verify import VerifyOptions, verify_blobs
from support.dying import Copy
from support.examples import FUZZ
from support.filling import place
from support.images import ContentBuilder
from support.invariants import assert_whole
from support.postgres import running_postgres
from support.registry import RegistryServer
from support.soak import COPIES, STOP, UPSTREAMS, did_all, main

#: At least so long, and until they did all of this together, however busy the machine is.
SECONDS, MOST_SECONDS = 1.5 * max(FUZZ, 1), 200.0
AT_LEAST = {
    "made a version": 5,
    "collected": 4,
    "manifests gone": 1,
    "blobs gone": 1,
    "read": 5,
    "rolled back": 1,
    "verified": 1,
}
ROLES = ("sync", "sync", "sync", "collect", "collect", "change", "read", "verify")
#: What each may meet when content or its repository goes from under it; it is then begun anew. A sync looks itself
#: whether a repository was deleted when it is told so by RunEnded.
EXPECTED = {
    "sync": {"RecordNotFound", "RunEnded", "VersionConflict", "NothingSynced", "DatabaseError", "DatabaseUnavailable"},
    "change": {"RecordNotFound", "OnlyVersion", "VersionConflict", "DatabaseError", "DatabaseUnavailable"},
    "read": {"RecordNotFound", "DatabaseUnavailable"},
    "collect": {"DatabaseUnavailable"},
    "verify": {"DatabaseUnavailable"},
}


def publish(registry: RegistryServer, number: int) -> None:
    """Moves two of four tags of an upstream to new content, which shares a layer with what both upstreams have."""
    shared = ContentBuilder(seed=0).blob_of(b"a layer that all have")
    for position, name in enumerate(UPSTREAMS):
        build = ContentBuilder(seed=1000 * position + number)
        assert build.blob_of(b"a layer that all have") == shared
        moving = [f"tag-{(number + offset) % 4}" for offset in ((0, 1) if number else (0, 1, 2, 3))]
        for tag in moving:
            images = [build.image([shared, build.blob(2000 + number)]) for _ in range(2)]
            build.tag(tag, build.index(images) if tag == "tag-0" else images[0])
        place(registry, name, build.content())


@pytest.mark.slow
def test_programs_at_once_lose_nothing_and_leave_nothing(tmp_path: Path, registry: RegistryServer) -> None:
    publish(registry, 0)
    with running_postgres() as server:
        url = server.make_database("soak")
        with Database.connect(url) as database:
            database.upgrade()
        did = run_programs(url, tmp_path, registry)
        print(dict(did))
        with Database.connect(url) as database:
            store = open_blob_store((tmp_path / "blobs").as_uri())
            assert assert_whole(database, store, additive=COPIES) > 0
            found = verify_blobs(database, store, VerifyOptions(), report=print)
            assert found.lost == ()
            # All of it goes when nothing needs it, so that no collector left anything behind.
            for repository in database.repositories.page().items:
                database.repositories.delete(repository.id)
            for hours in range(1, 4):
                at = datetime.now(timezone.utc) + timedelta(hours=hours)
                collect_orphans(database, store, grace=timedelta(), clock=lambda at=at: at, report=print)
            assert database.units.manifests().total_count == database.units.blobs().total_count == 0
            assert list(store.digests()) == []
    assert {what: did[what] for what, count in AT_LEAST.items() if did[what] < count} == {}
    assert did["deleted a repository"] > 0 or did["RunEnded"] == 0


def run_programs(url: str, folder: Path, registry: RegistryServer) -> Counter[str]:
    """What all programs did together; the upstreams change until they are to stop."""
    counts = folder / "counts"
    counts.mkdir()
    programs = [
        Copy(partial(main, role, url, folder / "blobs", registry.url, counts, number), folder / f"errors-{number}")
        for number, role in enumerate(ROLES)
    ]
    try:
        _publish_until_all_is_done(registry, programs, counts)
        (counts / STOP).touch()
        for number, (role, program) in enumerate(zip(ROLES, programs, strict=True)):
            assert program.wait() == 0, f"{role}: {program.errors[-4000:]}"
            problems = {name for name in json.loads((counts / f"{number}.json").read_text()) if name[0].isupper()}
            assert problems <= EXPECTED[role], f"{role} met {problems - EXPECTED[role]}: {program.errors[-4000:]}"
    finally:
        for program in programs:
            program.kill()
    return did_all(counts)


def _publish_until_all_is_done(registry: RegistryServer, programs: list[Copy], counts: Path) -> None:
    number, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < MOST_SECONDS and not any(program.has_ended() for program in programs):
        did = did_all(counts)
        if passed > SECONDS and all(did[what] >= count for what, count in AT_LEAST.items()):
            break
        number += 1
        publish(registry, number)
        time.sleep(0.5)
