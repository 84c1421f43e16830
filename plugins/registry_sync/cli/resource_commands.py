"""The commands ``repository``, ``remote``, ``run`` and ``content``: lists, details, and approval of removals."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.command_context import (
    confirm,
    end_lost,
    every,
    print_document,
    print_fields,
    print_rows,
    usable_database,
)
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import Repository
from registry_sync.domain.remote import Remote, split_private_keys
from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.domain.version_history import BlobProvenance, ManifestProvenance
from registry_sync.errors import RecordNotFound, RegistrySyncError
from registry_sync.hooks.dag_runs import continue_run
from registry_sync.hooks.settings import load_settings


def list_repositories(args: Namespace) -> None:
    """Lists repositories with their latest version."""
    with usable_database() as database:
        page = partial(database.repositories.page, name_contains=args.name)
        rows = [_repository_row(repository) for repository in every(page)]
    print_rows(rows, args.output)


def show_repository(args: Namespace) -> None:
    """Shows a repository."""
    with usable_database() as database:
        repository = database.repositories.by_name(args.name)
        latest = database.versions.latest(repository.id)
    present = {} if latest is None else latest.summary.present
    fields = {
        **_repository_row(repository),
        "retain_versions": repository.retain_versions,
        "labels": dict(repository.labels),
        "updated_at": repository.updated_at,
        "tags": present.get("docker.tag", 0),
        "manifests": present.get("docker.manifest", 0),
        "blobs": present.get("docker.blob", 0),
        "held_tags": 0 if latest is None else len(latest.holds),
    }
    print_fields(fields, args.output)


def _repository_row(repository: Repository) -> dict[str, Any]:
    return {
        "name": repository.name,
        "latest_version": repository.latest_number,
        "description": repository.description,
        "created_at": repository.created_at,
        "id": repository.id,
    }


def list_remotes(args: Namespace) -> None:
    """Lists remotes with their upstream and filters."""
    with usable_database() as database:
        page = partial(database.remotes.page, name_contains=args.name)
        rows = [_remote_row(remote) for remote in every(page)]
    print_rows(rows, args.output)


def show_remote(args: Namespace) -> None:
    """Shows all options of a remote."""
    with usable_database() as database:
        remote = database.remotes.by_name(args.name)
    said = {name: _shown_remote(value) for name, value in remote.spec.document().items()}
    print_fields(
        {**said, "created_at": remote.created_at, "updated_at": remote.updated_at, "id": remote.id}, args.output
    )


def _shown_remote(value: Any) -> Any:
    """The value without a private key, which earlier releases accepted among certificates."""
    return split_private_keys(value)[0] if isinstance(value, str) else value


def _remote_row(remote: Remote) -> dict[str, Any]:
    spec = remote.spec
    return {
        "name": spec.name,
        "url": spec.url.written,
        "upstream_name": spec.upstream_name,
        "policy": spec.policy,
        "include_tags": spec.include_tags,
        "conn_id": spec.conn_id,
        "id": remote.id,
    }


def show_content(args: Namespace) -> None:
    """Shows the blob or manifest of a digest."""
    with usable_database() as database:
        found = _find(database, Digest(args.digest))
    fields: dict[str, Any] = {
        "kind": "blob" if isinstance(found, BlobProvenance) else "manifest",
        "digest": str(found.digest),
        "size_bytes": found.size_bytes,
        "created_at": found.created_at,
    }
    if isinstance(found, BlobProvenance):
        fields |= {"source": found.source, "stored_at": found.stored_at, "verified_at": found.verified_at}
        fields |= {"fault": found.fault, "fault_at": found.fault_at}
    holders = [
        {
            "repository": holder.repository_name,
            "first_version": holder.first_number,
            "is_in_latest": holder.is_in_latest,
        }
        for holder in found.holders
    ]
    if args.output in ("json", "yaml"):
        print_document({**fields, "holders": holders}, args.output)
        return
    print_fields(fields, args.output)
    if holders:
        print_rows(holders, args.output)


def _find(database: Database, digest: Digest) -> BlobProvenance | ManifestProvenance:
    try:
        return database.provenance.manifest(digest)
    except RecordNotFound:
        pass
    try:
        return database.provenance.blob(digest)
    except RecordNotFound:
        raise RecordNotFound(f"no manifest or blob {digest} exists") from None


def list_runs(args: Namespace) -> None:
    """Lists sync runs, the newest first, of every repository or of one."""
    with usable_database() as database:
        end_lost(database)
        repository_id = None if args.name is None else database.repositories.by_name(args.name).id
        states = None if args.state is None else [args.state]
        page = partial(database.runs.page, repository_id=repository_id, states=states)
        names = {repository.id: repository.name for repository in every(database.repositories.page)}
        rows = [_run_row(run, names.get(run.repository_id)) for run in every(page, ordering="-started_at")]
    print_rows(rows, args.output)


def approve(args: Namespace) -> None:
    """Approves the removals of a run, and lets its waiting or failed task continue."""
    with usable_database() as database:
        key = RunKey(args.dag_id or load_settings().sync_dag_id, args.run_id, args.task or "")
        run = database.runs.by_key(key)
        repository = database.repositories.get(run.repository_id)
        if run.error:
            print(run.error, file=sys.stderr)
        if run.refused_removals is not None:  # otherwise the approval raises NothingToApprove
            confirm(args, f"Let {key.run_id} remove these tags from {repository.name}?")
        database.runs.approve_removals(run.id, getpass.getuser(), seen=run.refused_removals)
        continued = _continue(key, run.id)
    continuation = "no task of it waits or has failed"
    if continued:
        continuation = f"{format_count(continued, 'task')} of it will run again, once a scheduler runs"
    print(f"the removals of {key.run_id} are approved; {continuation}")


def _continue(key: RunKey, sync_run: str) -> int:
    """Continues the run and returns the number of its tasks that run again; ends the command with what to do if not."""
    try:
        return continue_run(key.dag_id, key.run_id, approved=[sync_run], approved_by=getpass.getuser())
    except RegistrySyncError:
        raise
    except Exception as problem:  # noqa: BLE001  any reason why Airflow's metadata database is not reachable
        sys.exit(
            f"the removals of {key.run_id} are approved, and the run could not be continued from here "
            f"({type(problem).__name__}: {problem}); in Airflow, approve it in the required actions of the run, or "
            "clear its failed CommitVersionOperator"
        )


def _run_row(run: SyncRun, repository: str | None) -> dict[str, Any]:
    return {
        "run_id": run.key.run_id,
        "dag_id": run.key.dag_id,
        "repository": repository,
        "state": run.state,
        "version": run.version_number,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "received_bytes": run.usage.received_bytes,
        "held_tags": run.counts.held_tag_count,
        "triggered_by": run.triggered_by,
        "removals_approved_by": run.removals_approved_by,
        "error": run.error,
    }
