"""What each task of a sync does at its start, done once in the process from which Airflow forks tasks.

A task begins with what that process has in memory. So it imports nothing that is there, and finds compiled the
statements that were executed there. For the rest it works as before: nothing here opens a store of an installation,
makes a request to a registry, or leaves a thread, a connection, a file or a row behind. Not for processes that fork no
tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database

log = logging.getLogger(__name__)

#: What the tasks of a sync import, ours and those of Airflow that it imports late itself.
MODULES = (
    "airflow.dag_processing.bundles.local",
    "airflow.providers.standard.operators.empty",
    "airflow.sdk._shared.logging.factory",
    "airflow.sdk._shared.logging.remote",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.bases.skipmixin",
    "airflow.sdk.definitions.asset.metadata",
    "jinja2.ext",
    "registry_sync.db.budget_leases",
    "registry_sync.db.database",
    "registry_sync.db.download_claims",
    "registry_sync.db.held_claims",
    "registry_sync.hooks.account_budgets",
    "registry_sync.hooks.clients",
    "registry_sync.hooks.shared_clients",
    "registry_sync.hooks.stores",
    "registry_sync.hooks.sync_metrics",
    "registry_sync.listener",
    "registry_sync.oci.client",
    "registry_sync.operators.commit_version",
    "registry_sync.operators.fetch_blobs",
    "registry_sync.operators.fetch_manifests",
    "registry_sync.operators.list_tags",
    "registry_sync.operators.mirror_notifier",
    "registry_sync.operators.plan_blobs",
    "registry_sync.operators.sync_mirrors",
    "registry_sync.operators.version_outputs",
    "registry_sync.plugin",
    "registry_sync.pulp.version_documents",
    "registry_sync.pulp.version_events",
    "registry_sync.sync.commit_version",
    "registry_sync.sync.early_heads",
    "registry_sync.sync.fetch_blobs",
    "registry_sync.sync.fetch_manifests",
    "registry_sync.sync.list_tags",
    "registry_sync.sync.listed_content",
    "registry_sync.sync.maintenance.collect",
    "registry_sync.sync.open_run",
    "registry_sync.sync.plan_blobs",
    "registry_sync.sync.sync_mirrors",
)


def load_modules() -> None:
    """Imports :data:`MODULES`; those that an Airflow does not have are skipped."""
    for module in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def rehearse() -> None:
    """Loads the modules and syncs a few bytes from a temporary folder into another, so that statements are compiled.

    Into a temporary database; where the settings name PostgreSQL, into temporary tables of that server, since
    statements depend on it, in a transaction that is rolled back. A failure is logged.
    """
    load_modules()
    try:
        _rehearse()
    except Exception:  # a task does without
        log.warning("syncs could not be rehearsed; tasks start more slowly", exc_info=True)


def _rehearse() -> None:
    from registry_sync.hooks.stores import open_blob_store, temporary_database

    with tempfile.TemporaryDirectory(prefix="registry_sync_") as name, temporary_database() as database:
        folder = Path(name)
        store = open_blob_store(str(folder / "store"))
        for number, layers in enumerate(((b"a",), (b"a",), (b"a", b"b"))):  # a first sync, no change, a tag that moved
            _write_layout(folder / "layout", layers)
            _sync(database, store, folder / "layout", f"rehearsal {number}")
        _sync_mirror(database, store, folder / "layout")


def _sync(database: Database, store: BlobStore, layout: Path, run_id: str) -> None:
    """A sync as two tasks do it, ``list_tags`` and ``commit_version``."""
    from registry_sync.domain.runs import Authority, RunKey, RunTrigger, RunUsage
    from registry_sync.hooks.clients import open_images, read_images
    from registry_sync.sync.commit_version import commit_version
    from registry_sync.sync.list_tags import list_tags
    from registry_sync.sync.listed_content import fetch_listed
    from registry_sync.sync.open_run import SyncRequest, open_run

    request = SyncRequest("rehearsal", url="http://127.0.0.1", upstream_name="rehearsal")
    key, by = RunKey("registry_sync", run_id), RunTrigger(triggered_by="admin")
    run = open_run(database, key, request, authority=Authority.AUTHOR, by=by)
    remote, client = run.remote, read_images(open_images(layout), "rehearsal")
    database.repositories.get(run.repository_id)
    database.account_budgets.paused_seconds("rehearsal")
    database.run_ends.unended(repository_id=run.repository_id)
    listed = list_tags(client, database, run, remote, max_shards=1, report=_ignore)
    if listed.is_unchanged:
        database.versions.latest(run.repository_id)
    else:
        work = (client, store, database, run, remote)
        fetch_listed(*work, shard_count=len(listed.shards), min_shard_bytes=1 << 40, report=_ignore)
    database.runs.add_usage(run.id, RunUsage(tag_page_count=1))
    if listed.is_unchanged:
        return
    database.runs.record_learned(run.id, {})
    run = database.run_ends.resume(run.id, None)
    result = commit_version(database, run, report=_ignore)
    if result.version is not None:
        database.repositories.former_names(run.repository_id)
        database.versions.tag_difference(result.version, limit=1)
    database.repositories.names([run.repository_id])
    database.runs.get(run.id)


def _sync_mirror(database: Database, store: BlobStore, layout: Path) -> None:
    """A sync of the same repository as one of the mirrors of a task of many, which finds it unchanged."""
    from datetime import timedelta

    from registry_sync.domain.mirror_results import counts_text, outcome_counts
    from registry_sync.domain.quantities import utc_now
    from registry_sync.domain.runs import RunTrigger
    from registry_sync.hooks.clients import open_images, read_images
    from registry_sync.sync.mirror_attempts import MirrorWork
    from registry_sync.sync.mirror_tasks import MirrorPlace, MirrorSync, MirrorTask
    from registry_sync.sync.open_run import SyncRequest, open_run
    from registry_sync.sync.unchanged_mirrors import SettledMirrors, expected_run

    request = SyncRequest("rehearsal", url="http://127.0.0.1", upstream_name="rehearsal")
    task, by = MirrorTask("registry_sync", "rehearsal 3", "sync_mirrors"), RunTrigger(triggered_by="admin")
    client = read_images(open_images(layout), "rehearsal")
    database.mirror_results.delete_old(["rehearsal"])
    results = dict(database.mirror_results.of_task(task.dag_id, task.run_id, task.task_id))
    settled = SettledMirrors(database, {"rehearsal": task.key("rehearsal")})
    work = MirrorWork(
        database,
        store,
        task,
        lambda remote: contextlib.nullcontext((client, remote)),
        min_shard_bytes=1 << 40,
        report=_ignore,
        hand_over=lambda _run: None,
        confirm_after=timedelta(days=1),
        on_start=lambda _priority: None,
        results=results,
        settled=settled,
    )
    mirror = MirrorSync(
        "rehearsal",
        start=lambda key: open_run(database, key, request, by=by),
        expect=lambda known: expected_run(request, known, by),
    )
    found = work.attempt(MirrorPlace(0, mirror), is_last_try=False).unchanged
    if found is not None:
        work.record_unchanged([found])
        database.confirmations.last_of_many([found.known.latest], problems_since=utc_now())
        database.confirmations.moving_tags_of_many([found.run.repository_id])
    counts_text(list(work.results.values()))
    outcome_counts(work.results.values())


def _write_layout(folder: Path, layers: tuple[bytes, ...]) -> None:
    """An OCI image layout with an index ``latest`` of one image with ``layers``."""
    kind = "application/vnd.oci.image"
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def put_document(document: dict[str, Any]) -> dict[str, Any]:
        return put(json.dumps({"schemaVersion": 2, **document}).encode(), document["mediaType"])

    config = put(b'{"architecture": "amd64", "os": "linux"}', f"{kind}.config.v1+json")
    described = [put(layer, f"{kind}.layer.v1.tar") for layer in layers]
    image = put_document({"mediaType": f"{kind}.manifest.v1+json", "config": config, "layers": described})
    image |= {"platform": {"architecture": "amd64", "os": "linux"}}
    index = put_document({"mediaType": f"{kind}.index.v1+json", "manifests": [image]})
    index |= {"annotations": {"org.opencontainers.image.ref.name": "rehearsal:latest"}}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))


def _ignore(_line: str) -> None:
    """What stages report."""
