"""Makes the dumps beside it: a database as the first release left it, after syncs of every kind.

It ran with the first release's own code, of commit 18b0829; what ran is ``git show 2c87869:`` of this file.

``first_release.sql`` is the SQLite database itself. ``first_release.json`` has the same rows for any database, and
what the first release's stores said of every version.
"""

from __future__ import annotations

import base64
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from registry_sync.db.database import Database
from registry_sync.db.tables import metadata
from registry_sync.domain.content_units import Relation, UnitQuery
from registry_sync.domain.records import PageRequest, Repository, RepositorySpec, SyncMode
from registry_sync.domain.runs import RunState
from registry_sync.errors import RegistrySyncError
from support.hostile_registry import HostileRegistry, reply
from support.images import ContentBuilder, RepositoryContent
from support.serving import serve
from support.syncing import Installation

HERE = Path(__file__).parent
NAME = "team/app"
EVERYTHING = PageRequest(limit=1000)


def upstreams() -> list[RepositoryContent]:
    """What the upstream held, from sync to sync: indexes that share images, tags that move, come and go."""
    build = ContentBuilder(seed=18)
    images = [build.image([build.blob(120), build.blob(90)], architecture=name) for name in ("amd64", "arm64", "s390x")]
    inner = build.index(images[:2])
    build.tag("latest", build.index(images))
    build.tag("nested", build.index([inner, images[2]]))
    build.tag("v1", images[0])
    build.tag("signature", build.image([build.blob(60)], extra={"subject": build.descriptor(images[0])}))
    states = [build.content()]
    build.tag("v2", build.image([build.blob(80)]))
    build.tag("latest", build.index(images[1:]))
    states.append(build.content())
    build.tag("v1", build.image([build.blob(70)]))
    build.tag("broken", build.image([build.blob(75)]))
    states.append(build.content())
    return [state.closure(state.tags) for state in states]


def main() -> None:
    """Plays the syncs, and writes both dumps."""
    with tempfile.TemporaryDirectory() as folder, HostileRegistry() as registry:
        here = Installation.embedded(Path(folder))
        play(here, registry)
        repositories = here.database.repositories.page().items
        expected = {repository.name: versions_of(here.database, repository) for repository in repositories}
        here.database.close()
        file = Path(folder) / "registry_sync.db"
        with sqlite3.connect(file) as connection:
            (HERE / "first_release.sql").write_text("\n".join(connection.iterdump()) + "\n")
        document = {"rows": rows_of(f"sqlite:///{file}"), "expected": expected}
    (HERE / "first_release.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


def play(here: Installation, registry: HostileRegistry) -> None:
    """Mirrors and additive syncs, a hold, a retention, another policy, and a run that failed in the middle."""
    first, second, third = upstreams()

    numbers = itertools.count(1)

    def sync(repository: str, **more: Any) -> None:
        here.sync(repository, str(registry.url), NAME, run_id=f"first_release_{next(numbers)}", **more)

    for content in (first, second):
        serve(registry, NAME, content)
        sync("app")
    serve(registry, NAME, first)
    sync("app", mode=SyncMode.ADDITIVE.value)
    serve(registry, NAME, third)
    lost = third.manifests[third.tags["broken"]].blobs[-1]
    registry.on("GET", f"/v2/{NAME}/blobs/{lost}", reply(404, b""))
    sync("app", is_last_try=True)
    here.database.repositories.create(RepositorySpec("kept", "the newest two", 2, {"team": "a"}))
    for content in (first, second, first):
        serve(registry, NAME, content)
        sync("kept")
    sync("later", policy="on_demand")
    build = ContentBuilder(seed=19)
    build.tag("latest", build.index([build.image([build.blob(50)])]))
    serve(registry, NAME, build.content())
    fail_before(here, "fetch_blobs", lambda before: sync("stopped", before=before))


def fail_before(here: Installation, stage: str, sync: Callable[[Any], None]) -> None:
    """Ends a sync as a task that failed there does."""

    def before(name: str, run: Any) -> None:
        if name == stage:
            here.database.runs.finish(run.id, RunState.FAILED, error="stopped by the test")
            raise RegistrySyncError("stopped by the test")

    try:
        sync(before)
    except RegistrySyncError:
        return
    raise AssertionError("the sync did not stop")


def versions_of(database: Database, repository: Repository) -> list[dict[str, Any]]:
    """What the stores say of each version of ``repository``, the oldest first."""
    page = database.versions.page(repository.id, PageRequest(ordering="number", limit=1000))
    return [
        {
            "number": version.number,
            "base_number": version.base_number,
            "created_at": version.created_at.isoformat(),
            "counts": version.summary.counts(),
            "holds": [[hold.tag, hold.digest, hold.reason] for hold in version.holds],
            "tags": database.versions.tags(repository.id, version.number),
            "units": {
                relation.value: units_of(database, UnitQuery(repository.id, version.number, relation))
                for relation in Relation
            },
        }
        for version in page.items
    ]


def units_of(database: Database, query: UnitQuery) -> dict[str, list[Any]]:
    """Tags, manifests and blobs that fit, with what the stores say of them."""
    return {
        "tags": [[unit.name, unit.digest] for unit in database.units.tags(query, EVERYTHING).items],
        "manifests": [
            [
                unit.digest,
                unit.media_type,
                unit.kind.value,
                unit.size_bytes,
                [str(child.digest) for child in unit.children],
            ]
            for unit in database.units.manifests(query, EVERYTHING).items
        ],
        "blobs": [
            [unit.digest, unit.media_type, unit.size_bytes, unit.is_stored]
            for unit in database.units.blobs(query, EVERYTHING).items
        ],
    }


def rows_of(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, in the order of foreign keys; bytes and times are tagged."""
    with Database.connect(url) as database, database.reading() as connection:
        return {
            table.name: [
                {name: tagged(value) for name, value in row._mapping.items()}
                for row in connection.execute(table.select().order_by(*table.primary_key.columns))
            ]
            for table in metadata.sorted_tables
        }


def tagged(value: Any) -> Any:
    """``value`` as JSON can hold it."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    return value


if __name__ == "__main__":
    main()
