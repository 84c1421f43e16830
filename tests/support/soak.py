"""Programs that work on one installation at once for a while, each a process of its own: :func:`main`."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from registry_sync.db.content.closures import is_in_version
from registry_sync.db.database import Database
from registry_sync.db.tables import blobs, repository_blobs
from registry_sync.domain.records import Repository
from registry_sync.domain.runs import RunKey, RunState, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import BlobMissing, RecordNotFound, RegistrySyncError, RunEnded
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import collect_orphans
from registry_sync.sync.maintenance.verify import VerifyOptions, verify_blobs
from support.syncing import Installation

UPSTREAMS = ("team/one", "team/two")
#: Repositories that content is copied into; what its tags replace stays there.
COPIES = ("copy-0", "copy-1")
#: Short, so that what is under way is often met; a sync that loses by it is restarted. On a slow machine it is so many
#: times as long as a collection takes: else no sync would ever be quick enough.
GRACE = timedelta(seconds=0.5)
COLLECTIONS_OF_GRACE = 5
#: How long there is rest between changes, and how many times as long as a change takes, for the same reason.
REST_SECONDS, CHANGES_OF_REST = 0.2, 5
#: How long there is rest after each other step, so that the processor is for collections, which most is waited for.
SHORT_REST_SECONDS = 0.2
STOP = "stop"


@dataclass
class Worker:
    """One program: ``did`` counts what it did; ``took`` is how long its last collection took."""

    here: Installation
    registry: str
    number: int
    random: random.Random
    did: Counter[str]
    took: timedelta = timedelta()

    def sync(self) -> None:
        """Syncs one of a few repositories, some of them shared with other programs, and keeps three versions of it."""
        name = self.random.choice(["shared", f"own-{self.number}"])
        run_id = f"{self.number}-{sum(self.did.values())}"
        repository = self.here.database.repositories.ensure(name)
        if repository.retain_versions is None:
            self.here.database.repositories.update(repository.id, replace(repository.spec, retain_versions=3))
        began: list[SyncRun] = []
        try:
            version = self.here.sync(
                name,
                self.registry,
                self.random.choice(UPSTREAMS),
                run_id=run_id,
                remote=run_id,
                replace_upstream=True,  # the upstreams take each other's place in turn
                before=lambda _stage, run: began.append(run),
            )
        except RegistrySyncError as error:
            repository_id = began[0].repository_id if began else repository.id
            if isinstance(error, RunEnded) and not self._is_deleted(repository_id):
                raise RuntimeError(f"a sync was ended whose repository is there: {error}") from error
            with contextlib.suppress(RecordNotFound, RunEnded):  # it was deleted with its repository
                run = self.here.database.runs.by_key(RunKey("registry_sync", run_id))
                self.here.database.runs.finish(run.id, RunState.FAILED, error="it failed")
            raise
        self.did["made a version" if version else "found nothing new"] += 1

    def change(self) -> None:
        """Rolls back, copies, and deletes versions and repositories."""
        began = time.monotonic()
        repositories = self._repositories()
        repository = self.random.choice(repositories)
        versions = self.here.database.versions
        numbers = self._numbers(repository)
        chosen = self.random.random()
        if chosen < 0.4:
            versions.roll_back(repository.id, self.random.choice(numbers))
            self.did["rolled back"] += 1
        elif chosen < 0.7:
            name = self.random.choice([name for name in COPIES if name != repository.name])
            target = self.here.database.repositories.ensure(name)
            versions.copy(target.id, CopyRequest(repository.id, self.random.choice(numbers)))
            self.did["copied"] += 1
        elif chosen < 0.9 and len(numbers) > 1:
            versions.delete(repository.id, self.random.choice(numbers))
            self.did["deleted a version"] += 1
        else:
            self.here.database.repositories.delete(repository.id)
            self.did["deleted a repository"] += 1
        time.sleep(max(REST_SECONDS, CHANGES_OF_REST * (time.monotonic() - began)))

    def collect(self) -> None:
        """Collects with hardly any grace, in small batches."""
        began = time.monotonic()
        grace = max(GRACE, COLLECTIONS_OF_GRACE * self.took)
        waited: list[float] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            time.sleep(seconds)

        done = collect_orphans(
            self.here.database, self.here.store, grace=grace, report=lambda _line: None, wait=wait, batch_size=5
        )
        self.took = timedelta(seconds=time.monotonic() - began - sum(waited))
        self.did["collected"] += 1
        self.did["manifests gone"] += done.manifests.count
        self.did["blobs gone"] += done.blobs.count
        self.did["strays gone"] += done.untracked.count

    def verify(self) -> None:
        """Verifies half of the blobs; nothing was broken, so that nothing may be found lost."""
        found = verify_blobs(self.here.database, self.here.store, VerifyOptions(share=0.5), report=lambda _line: None)
        if found.lost:
            raise RuntimeError(f"found lost what was not: {found.findings}")
        self.did["verified"] += 1

    def read(self) -> None:
        """Reads every blob and manifest of a version, as a client that pulls it would."""
        repository = self.random.choice(self._repositories())
        versions = self.here.database.versions
        number = self.random.choice(self._numbers(repository))
        try:
            self._read_version(repository, number)
        except (BlobMissing, RecordNotFound, AssertionError) as problem:
            with contextlib.suppress(RecordNotFound):
                versions.get(repository.id, number)
                raise RuntimeError(f"{repository.name} {number} exists and is not whole: {problem}") from problem
            self.did["gone while it was read"] += 1
            return
        self.did["read"] += 1

    def _read_version(self, repository: Repository, number: int) -> None:
        database, store = self.here.database, self.here.store
        with database.reading() as connection:
            rows = connection.execute(
                select(blobs.c.digest, blobs.c.stored_at)
                .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
                .where(is_in_version(repository_blobs, repository.id, number))
            ).all()
        for digest in database.versions.tags(repository.id, number).values():
            assert digest.matches(database.contents.manifest(digest).data)
        for row in rows:
            assert row.stored_at is not None, f"{row.digest} is noted as missing"
            digest = database.contents.blob(row.digest).digest
            with store.open(digest) as file:
                assert digest.matches(file.read()), f"{digest} holds other bytes"

    def _is_deleted(self, repository_id: str) -> bool:
        try:
            self.here.database.repositories.get(repository_id)
        except RecordNotFound:
            return True
        return False

    def _repositories(self) -> list[Repository]:
        page = self.here.database.repositories.page()
        found = [repository for repository in page.items if repository.latest_number is not None]
        if not found:
            time.sleep(0.1)
            raise RecordNotFound("there is no repository with a version yet")
        return found

    def _numbers(self, repository: Repository) -> list[int]:
        found = [version.number for version in self.here.database.versions.page(repository.id).items]
        if not found:
            raise RecordNotFound("the repository was deleted meanwhile")
        return found


def work(worker: Worker, step: Callable[[], None], counts: Path) -> None:
    """Repeats ``step`` until it is to stop; errors of ours count, and the next step is taken."""
    kept, new = counts / f"{worker.number}.json", counts / f"{worker.number}.new"
    while not (counts / STOP).exists():
        take(worker, step)
        time.sleep(SHORT_REST_SECONDS)
        new.write_text(json.dumps(worker.did))
        new.replace(kept)


def did_all(counts: Path) -> Counter[str]:
    """What all programs did together until now."""
    did: Counter[str] = Counter()
    for kept in counts.glob("*.json"):
        did += Counter(json.loads(kept.read_text()))
    return did


def take(worker: Worker, step: Callable[[], None]) -> None:
    """One step; the first errors of each type are reported."""
    try:
        step()
    except RegistrySyncError as error:
        name = type(error).__name__
        worker.did[name] += 1
        if worker.did[name] <= 3:
            print(f"{name}: {error}", file=sys.stderr)


def main(role: str, url: str, blobs: Path, registry: str, counts: Path, number: int) -> None:
    """One program: a method of :class:`Worker`, again and again until the folder ``counts`` has a file ``stop``.

    It keeps what it did in ``<number>.json`` there: counts by what happened, where an error of ours counts by its type.
    Any other error ends it.
    """
    with Database.connect(url) as database:
        here = Installation(database, open_blob_store(blobs.as_uri()))
        worker = Worker(here, registry, number, random.Random(number), Counter())
        work(worker, getattr(worker, role), counts)
