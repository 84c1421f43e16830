"""The command ``sync``: starts a run of the sync DAG and follows it, or runs the stages in this process.

A run is what the trigger form would start, with the rights of a trigger. With ``--local`` whoever may use the
installation's database acts with their own.
"""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry_sync.cli.arguments import REMOTE_OPTIONS
from registry_sync.cli.command_context import (
    named,
    print_document,
    print_fields,
    print_rows,
    read_connections,
    usable_database,
    without_airflows_log,
)
from registry_sync.cli.run_progress import follow_run, say, show_end
from registry_sync.cli.version_commands import row
from registry_sync.db.database import Database
from registry_sync.domain.quantities import format_bytes, utc_now
from registry_sync.domain.remote import SYNC_OPTIONS, parameter_name, read_options
from registry_sync.domain.runs import Authority, RunTrigger, SyncRun, run_id_about
from registry_sync.errors import ConfigurationError, RecordNotFound
from registry_sync.hooks.dag_runs import plan_of_run, trigger_run
from registry_sync.hooks.settings import load_settings
from registry_sync.hooks.stores import open_blobs
from registry_sync.sync.dry_run import plan_sync, planned_names
from registry_sync.sync.local_run import sync_here
from registry_sync.sync.maintenance.collect import local_key
from registry_sync.sync.open_run import SyncRequest, open_run

if TYPE_CHECKING:
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.domain.tag_options import TagSet


def sync(args: Namespace) -> None:
    """Syncs a repository; ends with status 1 when that fails, or when a dry run finds that it would."""
    with usable_database() as database:
        if args.remote is None and args.url is None:
            args.remote = remote_of(database, args.name)
        if args.local:
            plan = _plan_here(database, args) if args.dry_run else None
            if plan is None:
                _sync_here(database, args)
        else:
            plan = _sync_by_run(database, args)
    if plan is not None:
        print_plan(plan, args.output)


def remote_of(database: Database, name: str) -> str:
    """The remote of the last sync of the repository, else the one of its name. Raises :class:`ConfigurationError`."""
    try:
        repository = database.repositories.by_name(name)
        latest = database.runs.latest_settled(repository.id)
        if latest is not None and latest.remote_id is not None:
            return database.remotes.get(latest.remote_id).spec.name
    except RecordNotFound:
        pass
    try:
        return database.remotes.by_name(name).spec.name
    except RecordNotFound:
        raise ConfigurationError(
            f"say where {name!r} is synced from: --url and --upstream-name, such as --url https://quay.io "
            "--upstream-name libpod/alpine, or --remote with the name of one that exists "
            "(airflow registry-sync remote list)"
        ) from None


def _sync_by_run(database: Database, args: Namespace) -> dict[str, Any] | None:
    """Starts a run and follows it; the plan of a dry run."""
    dag_id = load_settings().sync_dag_id
    if args.remote is not None and args.url is None:
        named(database.remotes, args.remote)
    about = run_id_about("sync", args.name, utc_now().isoformat())
    run_id = without_airflows_log(lambda: trigger_run(dag_id, _conf(args), getpass.getuser(), by="cli", run_id=about))
    if args.no_wait:
        print(run_id)
        return None
    say(f"started the run {run_id} of {dag_id}")
    ended = follow_run(database, dag_id, run_id)
    plan = plan_of_run(dag_id, run_id) if args.dry_run else None
    if plan is None:
        show_end(database, dag_id, run_id, ended, args.output)
    return plan


def _conf(args: Namespace) -> dict[str, Any]:
    """The parameters of the run, those that were given alone."""
    conf: dict[str, Any] = {"repository": args.name, "mode": args.mode}
    said: dict[str, Any] = {name: getattr(args, name) for name in ("remote", "url", "upstream_name", "publish_as")}
    said |= {"platforms": args.platform, "tags": args.tag, "exclude_tags": args.exclude_tag}
    said |= {name: getattr(args, name) for name in REMOTE_OPTIONS if name not in said}
    said["tag_sets"] = None if said["tag_sets"] is None else [one.document() for one in _tag_sets(said["tag_sets"])]
    for name in ("replace_upstream", "approve_removals", "dry_run"):
        said[name] = getattr(args, name) or None
    for name in ("ssl_validation", "include_referrers"):
        said[name] = None if said[name] is None else str(said[name]).lower()
    return conf | {name: value for name, value in said.items() if value is not None}


def _tag_sets(text: str) -> tuple[TagSet, ...]:
    found: tuple[TagSet, ...] = read_options({"tag_sets": text})["tag_sets"]
    return found


def _request(args: Namespace) -> SyncRequest:
    conf = _conf(args)
    options: dict[str, Any] = {}
    for name in SYNC_OPTIONS:
        value = conf.get(parameter_name(name))
        options[name] = tuple(value) if isinstance(value, list) else value
    return SyncRequest(
        args.name,
        args.remote,
        args.url,
        args.upstream_name,
        mode=args.mode,
        replace_upstream=args.replace_upstream,
        publish_as=args.publish_as,
        options=options,
    )


def _open(database: Database, args: Namespace) -> SyncRun:
    """The run of this process, with the rights of whoever may write to the database."""
    by = RunTrigger(triggered_by=getpass.getuser())
    return open_run(database, local_key(utc_now()), _request(args), authority=Authority.AUTHOR, by=by)


@contextmanager
def connected(remote: RemoteSpec) -> Iterator[tuple[Any, RemoteSpec]]:
    """A client of the remote's registry, and the remote with the concurrency that its connection allows."""
    from registry_sync.hooks.clients import open_client

    read_connections()
    with open_client(remote) as client:
        yield client, replace(remote, download_concurrency=client.options.concurrency)


def _plan_here(database: Database, args: Namespace) -> dict[str, Any]:
    from registry_sync.pulp.plan_documents import plan_document

    with database.copied_for_sync(planned_names(_request(args))) as copy:
        plan = plan_sync(
            copy, open_blobs(), lambda opened: _open(opened, args), connected, is_last_try=True, report=say
        )
    return plan_document(plan)


def _sync_here(database: Database, args: Namespace) -> None:
    settings = load_settings()
    run = _open(database, args)
    if run.remote_changes:
        say(run.remote_changes)
    if args.approve_removals:
        database.runs.approve_removals(run.id, getpass.getuser(), in_advance=True)
    try:
        result = sync_here(
            database, open_blobs(settings), run, connected, min_shard_bytes=settings.min_shard_bytes, report=say
        )
    except KeyboardInterrupt:
        say("canceled; what was downloaded stays, and the next sync continues with it")
        sys.exit(130)
    latest = database.versions.latest(run.repository_id)
    version = latest if result is None or result.version is None else result.version
    is_new = result is not None and result.version is not None
    shown = None if version is None else row(version)
    if args.output in ("json", "yaml"):
        print_document(
            {"repository": args.name, "run_id": run.key.run_id, "is_new": is_new, "version": shown}, args.output
        )
        return
    if not is_new:
        print(f"{args.name}: nothing changed, no version was made")
    elif shown is not None:
        print_rows([shown], args.output)


def print_plan(plan: dict[str, Any], output: str) -> None:
    """A plan, the counts first; ends with status 1 for one that would stop."""
    if output in ("json", "yaml"):
        print_document(plan, output)
    else:
        tags, downloads = plan["tags"], plan["downloads"]
        fields = {
            "repository": plan["repository"],
            "outcome": plan["outcome"],
            "version": plan["number"],
            "latest_version": plan["base_number"],
            **{f"{name}_tags": tags[name] for name in ("listed", "selected", "added", "moved", "removed", "held")},
            "download": f"{downloads['manifests']:,} manifests, {downloads['blobs']:,} blobs, "
            f"{format_bytes(downloads['blob_bytes'])}",
            "requests": downloads["request_count"],
            "creates": plan["creates"],
            "remote_changes": plan["remote_changes"],
        }
        print_fields(fields, output)
        for name in ("tag_changes", "holds"):
            if plan[name]:
                print_rows(plan[name], output)
        for note in plan["notes"]:
            say(note)
    for refusal in plan["refusals"]:
        say(f"{refusal['error']}: {refusal['message']}")
    if plan["refusals"]:
        sys.exit(1)
