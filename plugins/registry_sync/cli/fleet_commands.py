"""The commands ``fleet validate``, ``show``, ``plan`` and ``import``: what files declare, before anything is synced.

``validate``, ``show`` and ``import`` need neither a database nor Airflow's: they can be run where a file is reviewed.
"""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_sync.cli.command_context import (
    errors_shown,
    print_document,
    print_fields,
    print_rows,
    read_connections,
    usable_database,
    without_airflows_log,
)
from registry_sync.cli.run_progress import say
from registry_sync.domain.mirrors import Mirror, MirrorSchedule, Mistake
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.domain.runs import RunTrigger
from registry_sync.errors import ConfigurationError, RegistrySyncError
from registry_sync.fleet.declared_fleet import Fleet
from registry_sync.fleet.imports.formats import ImportOptions, import_fleet
from registry_sync.fleet.imports.skopeo import RepositoryNames
from registry_sync.fleet.loading import load_fleet
from registry_sync.hooks.settings import load_settings

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.sync_plans import SyncPlan


def validate(args: Namespace) -> None:
    """Prints every mistake as ``file:line: message``; ends with status 1 when there is one."""
    with errors_shown():
        fleet = _fleet(args.path, cached=False)
    mistakes = _each_once(fleet.mistakes)
    if args.output in ("json", "yaml"):
        print_document([_mistake_row(mistake, hurt) for mistake, hurt in mistakes.items()], args.output)
    else:
        for mistake, hurt in mistakes.items():
            others = f" (and {format_count(hurt - 1, 'more mirror')})" if hurt > 1 else ""
            print(f"{mistake}{others}")
    good, broken = len(fleet.documents), len(fleet.broken)
    say(f"{format_count(good, 'mirror')} in order, {format_count(broken, 'mirror')} with mistakes")
    if mistakes:
        sys.exit(1)


def show(args: Namespace) -> None:
    """Shows mirrors with what they inherit; one of them in full."""
    with errors_shown():
        fleet = _fleet(args.path)
        if args.name is not None:
            mirror = fleet.mirror(args.name)
            if args.output in ("json", "yaml"):
                print_document(_whole(fleet, mirror), args.output)
            else:
                print_fields(_whole(fleet, mirror), args.output)
            return
        mirrors = _selected(fleet, (), args.group)
    if args.output in ("json", "yaml"):
        print_document([_whole(fleet, mirror) for mirror in mirrors], args.output)
    else:
        print_rows([_row(fleet, mirror) for mirror in mirrors], args.output)
    _say_mistakes(fleet)


def plan(args: Namespace) -> None:
    """Says what a sync of each mirror would do, and writes nothing; ends with status 1 when one would fail."""
    from registry_sync.hooks.stores import open_blobs
    from registry_sync.pulp.plan_documents import plan_document

    with usable_database() as database:
        fleet = _fleet(args.path)
        mirrors = _selected(fleet, args.names, args.group)
        read_connections()
        planner = _Planner(database, open_blobs())
        planned = without_airflows_log(lambda: planner.plan_all(mirrors, args.jobs))
    if args.output in ("json", "yaml"):
        documents = [
            {"repository": one.repository, "error": one.error}
            if one.plan is None
            else {**plan_document(one.plan), "error": one.error}
            for one in planned
        ]
        print_document(documents, args.output)
    else:
        print_rows([one.row for one in planned], args.output)
    _say_mistakes(fleet)
    if any(one.error for one in planned):
        sys.exit(1)


def import_file(args: Namespace) -> None:
    """Prints or writes ``mirrors.yaml`` for another tool's file; ends with status 1 when something is not carried over.

    What was found is printed to standard error as ``file:line: message``.
    """
    with errors_shown():
        path, output = Path(args.path).expanduser(), args.output and Path(args.output).expanduser()
        if output and output.exists() and not (args.force and output.is_file()):
            replace_it = ", or --force to replace it" if output.is_file() else ""
            raise ConfigurationError(f"{str(output)!r} exists: give another file{replace_it}")
        try:
            data = path.read_bytes()
        except OSError as problem:
            raise ConfigurationError(f"{str(path)!r} cannot be read: {problem.strerror}") from None
        imported = import_fleet(data, path.name, args.format, ImportOptions(RepositoryNames(args.names)))
        if output:
            write_whole(output, imported.text)
    if not output:
        print(imported.text, end="")
    for finding in imported.findings:
        say(str(finding))
    warnings = sum(finding.is_warning for finding in imported.findings)
    say(f"{format_count(imported.mirror_count, 'mirror')}, {format_count(warnings, 'warning')}")
    if warnings:
        sys.exit(1)


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole, or leaves it as it was. Raises :class:`ConfigurationError`."""
    path = path.resolve()  # a link stays one
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as problem:
        new.unlink(missing_ok=True)
        raise ConfigurationError(f"{str(path)!r} cannot be written: {problem.strerror}") from None


@dataclass(frozen=True)
class _PlannedMirror:
    """The plan of a mirror, None where it could not be made; ``error`` is why a sync would fail."""

    repository: str
    plan: SyncPlan | None
    error: str | None

    @property
    def row(self) -> dict[str, Any]:
        """The counts for a table."""
        if self.plan is None:
            names = ("listed", "selected", "added", "moved", "removed", "held", "requests", "download_bytes")
            return {"repository": self.repository, "outcome": "failed", **dict.fromkeys(names), "error": self.error}
        tags, downloads = self.plan.tags, self.plan.downloads
        return {
            "repository": self.repository,
            "outcome": self.plan.outcome,
            **{name: getattr(tags, name) for name in ("listed", "selected", "added", "moved", "removed", "held")},
            "requests": downloads.request_count,
            "download_bytes": downloads.blob_bytes,
            "error": self.error,
        }


@dataclass(frozen=True)
class _Planner:
    """Plans mirrors on copies of what the database has of them; several at once."""

    database: Database
    store: BlobStore

    def plan_all(self, mirrors: Sequence[Mirror], jobs: int) -> list[_PlannedMirror]:
        """The plans of all mirrors in their order, ``jobs`` at once."""
        with ThreadPoolExecutor(max(1, min(jobs, len(mirrors)))) as threads:
            return list(threads.map(self.plan, mirrors))

    def plan(self, mirror: Mirror) -> _PlannedMirror:
        """The plan of one mirror; an error is of this mirror alone."""
        from registry_sync.cli.sync_commands import connected
        from registry_sync.sync.declared_mirrors import planned_mirror_names, start_mirror
        from registry_sync.sync.dry_run import plan_sync
        from registry_sync.sync.maintenance.collect import local_key

        by = RunTrigger(triggered_by=getpass.getuser())
        try:
            with self.database.copied_for_sync(planned_mirror_names(mirror)) as copy:
                made = plan_sync(
                    copy,
                    self.store,
                    lambda opened: start_mirror(opened, mirror, local_key(utc_now()), by),
                    connected,
                    is_last_try=True,
                    report=lambda _line: None,
                )
        except RegistrySyncError as problem:
            return _PlannedMirror(mirror.repository, None, f"{type(problem).__name__}: {problem}")
        refused = "; ".join(f"{refusal.error}: {refusal.message}" for refusal in made.refusals)
        return _PlannedMirror(mirror.repository, made, refused or None)


def _fleet(path: str | None, *, cached: bool = True) -> Fleet:
    """The fleet at ``path``, None for the setting's. Raises :class:`ConfigurationError` where there is none."""
    settings = load_settings()
    found = settings.fleet_path if path is None else Path(path).expanduser()
    if found is None:
        raise ConfigurationError(
            "no file declares mirrors: give the path of one, or set [registry_sync] fleet_path to it"
        )
    return load_fleet(found.absolute(), settings.fleet_cache if cached else None)


def _selected(fleet: Fleet, names: Sequence[str], group: str | None) -> list[Mirror]:
    """The mirrors of these names, or all; of one group. Raises :class:`ConfigurationError` for unknown ones."""
    mirrors = [fleet.mirror(name) for name in names] if names else list(fleet.mirrors)
    if group is None:
        return mirrors
    found = [mirror for mirror in mirrors if mirror.group == group]
    if not found:
        raise ConfigurationError(f"no mirror of {str(fleet.path)!r} is in a group {group!r}")
    return found


def _each_once(mistakes: Iterable[Mistake]) -> dict[Mistake, int]:
    """Each mistake without its mirror, and how many mirrors it hurts."""
    found: dict[Mistake, int] = {}
    for mistake in mistakes:
        said = Mistake(mistake.file, mistake.line, mistake.message)
        found[said] = found.get(said, 0) + (mistake.repository is not None)
    return found


def _mistake_row(mistake: Mistake, hurt: int) -> dict[str, Any]:
    return {"file": mistake.file, "line": mistake.line, "message": mistake.message, "mirrors": hurt}


def _say_mistakes(fleet: Fleet) -> None:
    mistakes = _each_once(fleet.mistakes)
    if mistakes:
        say(f"{format_count(len(mistakes), 'mistake')}; airflow registry-sync fleet validate shows them")


def _schedule(fleet: Fleet, mirror: Mirror) -> MirrorSchedule | None:
    """When a mirror is synced: by its group, where that is a batch."""
    return fleet.groups[mirror.group].schedule if mirror.is_batched and mirror.group else mirror.schedule


def _row(fleet: Fleet, mirror: Mirror) -> dict[str, Any]:
    remote = mirror.remote
    schedule = _schedule(fleet, mirror)
    return {
        "repository": mirror.repository,
        "source": f"remote {mirror.remote_name}" if remote is None else remote.source,
        "group": mirror.group,
        "schedule": None if schedule is None else schedule.cron or schedule.asset or f"every {schedule.interval}",
        "enabled": mirror.is_enabled,
        "mode": mirror.mode,
        "selection": None if remote is None else "; ".join(remote.limits()) or "everything",
        "dag_id": mirror.dag_id,
        "declared_in": mirror.place,
    }


def _whole(fleet: Fleet, mirror: Mirror) -> dict[str, Any]:
    """All fields of a mirror, the remote with its defaults."""
    mirror = replace(mirror, schedule=_schedule(fleet, mirror))
    document = {name: value for name, value in mirror.document().items() if name != "remote_document"}
    remote: Mapping[str, Any] | None = None if mirror.remote is None else mirror.remote.document()
    return {**document, "dag_id": mirror.dag_id, "remote": dict(_said(remote))} if remote else document


def _said(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options that are not empty."""
    return ((name, value) for name, value in document.items() if value not in (None, [], {}))
