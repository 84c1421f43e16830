"""Makes ``database.sql`` beside it: a database after syncs, copies, rollbacks and verifications of every kind.

It ran with the code of commit 668ebe0, whose modules had other names: what is kept was written by an older release.
``responses.json`` is made by the test that compares it (``tests/integration/api/test_golden.py``), when it is run with
``REGISTRY_SYNC_WRITE_GOLDEN=1``; do that only for a change of the documents that is wanted.
"""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from registry_sync.db.database import Database
from registry_sync.domain.records import Annotation, RepositorySpec, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import Policy, Remote, RemoteSpec
from registry_sync.domain.runs import RequestedSync, RunKey, RunState, RunTrigger, RunUsage, SyncRun
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import TooManyRemovals
from support.metadata import LISTED_AT, Upstream, image, index, layer, play_stages

HERE = Path(__file__).parent
DAG_ID = "golden"
#: Requests over REST, by what becomes of them; the DAG runs stand in ``support.rest_golden``.
TASKS = {
    "waiting": "00000000-0000-4000-8000-000000000001",
    "running": "00000000-0000-4000-8000-000000000002",
    "completed": "00000000-0000-4000-8000-000000000003",
    "failed": "00000000-0000-4000-8000-000000000004",
    "canceled": "00000000-0000-4000-8000-000000000005",
    "refused": "00000000-0000-4000-8000-000000000006",
    "stopped": "00000000-0000-4000-8000-000000000007",
}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def play(database: Database) -> None:
    """Fills ``database``."""
    full = database.remotes.create(
        RemoteSpec.parse(
            name="full",
            url="https://registry.example:5000",
            upstream_name="team/app",
            include_tags=("v*", "latest"),
            exclude_tags=("*-rc",),
            policy=Policy.IMMEDIATE,
            download_concurrency=7,
            conn_id="registry_example",
            proxy_url="http://proxy.example:3128",
            ssl_validation=False,
            ssl_ca_certificate=CERTIFICATE,
            ssl_client_certificate=f"{CERTIFICATE}-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n",
            platforms=("linux/amd64", "linux/arm/v7"),
            include_referrers=False,
            labels={"team": "web", "größe": "«ß»"},
            allow_sparse=True,
            allow_schema1=True,
            include_foreign_layers=True,
            max_held_share=0.95,
            max_removed_share=None,
            max_removed_tags=3,
        )
    )
    plain = database.remotes.create(RemoteSpec.parse("plain", "https://registry-1.docker.io", "hello-world"))
    gone = database.remotes.create(
        RemoteSpec.parse("gone", "http://old.example", "app", policy=Policy.ON_DEMAND, exclude_tags=("x",))
    )
    _play_app(database, full)
    _play_kept(database, plain, gone)
    _play_tasks(database, plain)
    database.repositories.create(RepositorySpec("empty", "no version yet", None, {"a": "b"}))


def _begin(
    database: Database, repository: str, remote: Remote, run_id: str, *, mode: SyncMode = SyncMode.MIRROR, dag: str
) -> SyncRun:
    return database.runs.begin(
        RunKey(dag, run_id),
        repository_id=database.repositories.ensure(repository).id,
        remote_id=remote.id,
        remote=replace(remote.spec, include_foreign_layers=False),
        mode=mode,
        by=RunTrigger(repository, "anna"),
    )


def _play_app(database: Database, remote: Remote) -> None:
    """Holds, gaps, foreign layers, platforms, a rollback, a copy, lost bytes and descriptions."""
    upstream = Upstream()
    arm, missing = image("shared", note="arm"), image("missing")
    upstream.tag("latest", index(arm, missing, platform={"os": "linux", "architecture": "arm", "variant": "v7"}), arm)
    upstream.tag("v1", image("shared", layer("elsewhere", is_foreign=True), note="größe «ß»"))
    upstream.tag("v2", image("two"))
    run = _begin(database, "library/app", remote, "scheduled__2026-03-01", dag="nightly")
    database.runs.add_usage(run.id, RunUsage(5, 4, 6, 2, 12_345, 1))
    play_stages(database, run, upstream)
    database.versions.commit(run.id)
    upstream.tag("v2", image("two", "and a half"))
    upstream.tag("bad", image("bad"))
    run = _begin(database, "library/app", remote, "scheduled__2026-03-02", dag="nightly")
    database.selections.record_referrers_problem(run.id, "503 of registry.example:5000")
    held = {"bad": "its manifest is not JSON", "v1": "too large"} | {f"held-{n:02}": f"reason {n}" for n in range(25)}
    for name in held:
        upstream.tags.setdefault(name, image(name))
    play_stages(database, run, upstream, held=held, listed_at=LISTED_AT + timedelta(hours=1))
    database.versions.commit(run.id)
    repository = database.repositories.by_name("library/app")
    database.versions.annotate(repository.id, 1, lambda _: Annotation("tested", {"stage": "production"}))
    database.versions.roll_back(repository.id, 1, by="bob", description="back to Friday")
    target = database.repositories.create(RepositorySpec("promoted"))
    request = CopyRequest(repository.id, 2, TagFilter.parse(["v*"], ()), SyncMode.ADDITIVE)
    database.versions.copy(target.id, request, by="carol", description=None)
    blobs = sorted(blob.digest for blob in database.units.blobs().items if blob.is_stored)
    database.contents.mark_missing(blobs[:2])
    database.contents.mark_stored(blobs[:1], source="registry.example:5000/team/app")
    database.contents.mark_lost(blobs[2:3], FindingKind.BROKEN, LISTED_AT)
    database.contents.mark_lost(blobs[3:4], FindingKind.MISSING, LISTED_AT)
    database.blob_checks.mark_verified(blobs[4:5], LISTED_AT)


def _play_kept(database: Database, plain: Remote, gone: Remote) -> None:
    """Two of three versions are kept; the remote of the last is deleted since."""
    repository = database.repositories.create(RepositorySpec("kept", "the newest two", 2, {"team": "a"}))
    for number, remote in enumerate((plain, plain, gone), 1):
        upstream = Upstream()
        upstream.tag("latest", image(f"kept {number}"))
        run = _begin(database, "kept", remote, f"manual__{number}", mode=SyncMode.ADDITIVE, dag=DAG_ID)
        play_stages(database, run, upstream, listed_at=LISTED_AT + timedelta(hours=number))
        database.versions.commit(run.id)
    request = CopyRequest(repository.id, None, TagFilter.parse(None, ()), SyncMode.MIRROR)
    orphan = database.repositories.create(RepositorySpec("copied-from-gone"))
    lost = database.repositories.create(RepositorySpec("lost"))
    database.versions.copy(lost.id, request, by="dora", description=None)
    copied = CopyRequest(lost.id, None, TagFilter.parse(None, ()), SyncMode.MIRROR)
    database.versions.copy(orphan.id, copied, by=None, description="its source is gone")
    database.repositories.delete(lost.id)
    database.remotes.delete(gone.id)


def _play_tasks(database: Database, remote: Remote) -> None:
    """A sync for each state of a task."""
    repository = database.repositories.create(RepositorySpec("tasks"))
    for number, (name, task) in enumerate(TASKS.items()):
        database.requests.add(
            RequestedSync(
                id=task,
                dag_id=DAG_ID,
                repository_id=repository.id,
                remote_id=remote.id,
                mode=SyncMode.MIRROR,
                requested_by="erin",
                may_replace_upstream=False,
                requested_at=LISTED_AT + timedelta(hours=10, minutes=number),
            )
        )
        if name == "refused":
            database.requests.record_error(task, "RecordNotFound: the remote that this sync was asked for is gone")
        if name in ("waiting", "refused"):
            continue
        run = _begin(database, "tasks", remote, f"registry_sync__{task}", dag=DAG_ID)
        upstream = Upstream()
        for tag in ("a", "b", "c"):
            upstream.tag(tag, image(f"{tag} of tasks"))
        if name == "stopped":
            upstream.tags = {"other": image("another")}
            upstream.catalog = {found.digest: found for found in upstream.tags.values()}
        play_stages(database, run, upstream, listed_at=LISTED_AT + timedelta(hours=11, minutes=number))
        if name == "completed":
            database.versions.commit(run.id)
        elif name == "stopped":
            try:
                database.versions.commit(run.id)
            except TooManyRemovals as refused:
                database.runs.finish(run.id, RunState.FAILED, error=f"TooManyRemovals: {refused}")
                database.runs.approve_removals(run.id, "frank")
        elif name == "failed":
            database.runs.finish(run.id, RunState.FAILED, error="NotFound: there is no library/hello-world")
        elif name == "canceled":
            database.runs.finish(run.id, RunState.CANCELED, error="the DAG run was canceled")


def main() -> None:
    """Plays it all, and writes the dump."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry_sync.db"
        with Database.connect(f"sqlite:///{file}") as database:
            database.ready()
            play(database)
        with sqlite3.connect(file) as connection:
            (HERE / "database.sql").write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")
        connection.close()


if __name__ == "__main__":
    main()
