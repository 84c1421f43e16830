"""The command ``repository import``: the first version of a repository from a folder that another tool has filled."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_sync.cli.command_context import print_document, print_fields, usable_database
from registry_sync.cli.run_progress import say
from registry_sync.cli.sync_commands import remote_of
from registry_sync.cli.version_commands import row
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import Authority, RunTrigger, SyncRun
from registry_sync.errors import ConfigurationError, RecordNotFound
from registry_sync.fleet.loading import load_fleet
from registry_sync.hooks.settings import load_settings
from registry_sync.hooks.stores import open_blobs
from registry_sync.sync.declared_mirrors import declare
from registry_sync.sync.local_run import sync_here
from registry_sync.sync.maintenance.collect import local_key
from registry_sync.sync.open_run import SyncRequest, open_run

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.domain.mirrors import Mirror
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.domain.runs import CommitResult
    from registry_sync.sync.dry_run import Connect

_SHOWN = 20
#: As in a sync: an import stores the bytes, whenever the remote downloads them.
_IMPORTED: Mapping[str, Any] = {"mode": SyncMode.ADDITIVE.value, "policy": Policy.IMMEDIATE.value}


def import_repository(args: Namespace) -> None:
    """Makes the first version of a repository from a folder; ends with status 1 when a tag could not be imported."""
    from registry_sync.hooks.clients import open_images, read_images

    with usable_database() as database:
        folder = open_images(Path(args.path).expanduser(), None if args.tag is None else TagName(args.tag))
        _refuse_versions(database, args.name)
        run = _open(database, args)
        if run.remote_changes:
            say(run.remote_changes)

        @contextmanager
        def connect(remote: RemoteSpec) -> Iterator[tuple[Any, RemoteSpec]]:
            name = folder.repository(args.from_name, remote.source)
            tags = format_count(len(folder.images[name]), "tag")
            say(f"{folder.root}: {tags} of {name or 'a repository that it does not name'}, imported as {remote.source}")
            yield read_images(folder, name), remote

        result = _run(database, run, connect, f"import of {folder.root}")
    _show(args, result, folder.skipped)


def _refuse_versions(database: Database, name: str) -> None:
    try:
        latest = database.repositories.by_name(name).latest_number
    except RecordNotFound:
        return
    if latest is not None:
        raise ConfigurationError(
            f"{name!r} has version {latest} already, and an import makes the first one; sync it, which downloads only "
            "what is missing, or import into another repository and promote its tags"
        )


def _open(database: Database, args: Namespace) -> SyncRun:
    """The run of the import: of the given upstream, else of the declared mirror of that name, else of its remote."""
    by = RunTrigger(triggered_by=getpass.getuser())
    key, changes = local_key(utc_now()), None
    request = partial(SyncRequest, args.name, **_IMPORTED)
    mirror = None if args.remote is not None or args.url is not None else _declared(args.name)
    if mirror is not None:
        changes = "; ".join(declare(database, mirror).changes) or None
        made = request(remote=mirror.remote_name, replace_upstream=mirror.replaces_upstream)
    elif args.url is not None:
        made = request(remote=args.remote, url=args.url, upstream_name=args.upstream_name)
    else:
        made = request(remote=args.remote or remote_of(database, args.name))
    return open_run(database, key, made, authority=Authority.AUTHOR, by=by, remote_changes=changes)


def _declared(name: str) -> Mirror | None:
    """The mirror of that name in the files of the setting ``fleet_path``; None without one."""
    settings = load_settings()
    if settings.fleet_path is None:
        return None
    fleet = load_fleet(settings.fleet_path.absolute(), settings.fleet_cache)
    return next((mirror for mirror in fleet.mirrors if mirror.repository == name), None)


def _run(database: Database, run: SyncRun, connect: Connect, came_from: str) -> CommitResult | None:
    """The stages of a sync over the folder; an interruption ends the command."""
    settings = load_settings()
    try:
        return sync_here(
            database,
            open_blobs(settings),
            run,
            connect,
            min_shard_bytes=settings.min_shard_bytes,
            report=say,
            came_from=came_from,
        )
    except KeyboardInterrupt:
        say("canceled; what was stored stays, and the next import or sync continues with it")
        sys.exit(130)


def _show(args: Namespace, result: CommitResult | None, skipped: Sequence[str]) -> None:
    """The version, and what was not imported; ends with status 1 for that."""
    version = None if result is None else result.version
    holds = () if result is None else result.holds
    shown = None if version is None else row(version)
    if args.output in ("json", "yaml"):
        held = [{"tag": hold.tag, "reason": hold.reason} for hold in holds]
        document = {"repository": args.name, "version": shown, "holds": held, "left_out": list(skipped)}
        print_document(document, args.output)
    elif shown is not None:
        print_fields(shown, args.output)
    for hold in holds:
        say(f"{hold.tag} is not imported: {hold.reason}")
    for sentence in skipped[:_SHOWN]:
        say(f"left out: {sentence}")
    if len(skipped) > _SHOWN:
        say(f"left out: {len(skipped) - _SHOWN:,} more")
    if holds or skipped:
        sys.exit(1)
