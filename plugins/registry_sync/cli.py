"""Commands below ``airflow registry-sync``, which Airflow finds through the provider's ``cli`` entry.

Loaded by every ``airflow`` command, so it imports nothing but the standard library until one of its own runs.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

    from registry_sync.db.database import Database
    from registry_sync.domain.records import Repository, RepositoryVersion


def get_cli_commands() -> list[CLICommand]:
    """The commands, as Airflow's parser reads them."""
    from airflow.cli.cli_config import ARG_OUTPUT, ARG_YES, ActionCommand, Arg, GroupCommand

    # Airflow's class carries no annotations.
    new_argument: Callable[..., Arg] = Arg
    name = new_argument(("name",), help="Name of the repository")
    number = new_argument(("number",), help="Number of the version (default: the latest)", nargs="?", type=int)
    revision = new_argument(
        ("-r", "--to-revision"), help="Schema revision to go back to; 'base' drops all", required=True
    )
    db = (
        ActionCommand("upgrade", "Create or migrate the metadata database", upgrade, ()),
        ActionCommand("check", "Say whether the metadata database can be used as it is", check, (ARG_OUTPUT,)),
        ActionCommand("downgrade", "Migrate the metadata database back", downgrade, (revision, ARG_YES)),
    )
    repository = (ActionCommand("list", "List repositories", list_repositories, (ARG_OUTPUT,)),)
    version = (
        ActionCommand("list", "List the versions of a repository", list_versions, (name, ARG_OUTPUT)),
        ActionCommand("show", "Show a version of a repository", show_version, (name, number, ARG_OUTPUT)),
    )
    groups = (
        GroupCommand("db", "Look after the metadata database of registry-sync", db),
        GroupCommand("repository", "Look at repositories", repository),
        GroupCommand("version", "Look at repository versions", version),
    )
    return [GroupCommand("registry-sync", "Mirror container repositories as versioned content", groups)]


@contextmanager
def _errors_shown() -> Iterator[None]:
    """Ends the command with the message of an error of ours, without a traceback."""
    from registry_sync.errors import RegistrySyncError

    try:
        yield
    except RegistrySyncError as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")


@contextmanager
def _configured_database() -> Iterator[Database]:
    """The database that the settings name, as it is: neither migrated nor checked."""
    from registry_sync.db.database import Database
    from registry_sync.hooks.settings import load_settings

    with _errors_shown(), Database.connect(load_settings().sql_alchemy_conn) as database:
        yield database


@contextmanager
def _usable_database() -> Iterator[Database]:
    with _configured_database() as database:
        database.ready()
        yield database


def upgrade(_args: Namespace) -> None:
    """Creates or migrates the configured metadata database; safe when repeated."""
    with _configured_database() as database:
        database.upgrade()
        print(f"{database.location} is at schema {database.revision()}")


def check(args: Namespace) -> None:
    """Says whether the configured metadata database can be used; ends with status 1 when not."""
    from registry_sync.errors import DatabaseOutdated

    with _configured_database() as database:
        try:
            database.check()
            problem = None
        except DatabaseOutdated as outdated:
            problem = str(outdated)
        state = {
            "location": database.location,
            "schema": database.revision(),
            "needed_schema": database.needed_revision,
            "is_usable": problem is None,
        }
        _print(state, args.output)
    if problem is not None:
        sys.exit(problem)


def downgrade(args: Namespace) -> None:
    """Migrates the configured metadata database back, after asking; what the older schema cannot hold is lost."""
    with _configured_database() as database:
        question = f"Migrate {database.location} back to {args.to_revision}? Records may be lost. [y/N] "
        if not args.yes and input(question).strip().lower() not in ("y", "yes"):
            sys.exit("nothing was done")
        database.downgrade(args.to_revision)
        print(f"{database.location} is at schema {database.revision() or 'none'}")


def list_repositories(args: Namespace) -> None:
    """Every repository with its latest version."""
    with _usable_database() as database:
        rows = [_repository_row(repository) for repository in _every(database.repositories.page)]
    _print(rows, args.output)


def list_versions(args: Namespace) -> None:
    """Every version of a repository, the newest first."""
    with _usable_database() as database:
        repository = database.repositories.by_name(args.name)
        rows = [_version_row(version) for version in _every(database.versions.page, repository.id, ordering="-number")]
    _print(rows, args.output)


def show_version(args: Namespace) -> None:
    """What a version holds, added and removed, and the tags that it holds back."""
    from registry_sync.errors import RecordNotFound

    with _usable_database() as database:
        repository = database.repositories.by_name(args.name)
        number = repository.latest_number if args.number is None else args.number
        if number is None:
            raise RecordNotFound(f"repository {repository.name!r} has no version yet")
        version = database.versions.get(repository.id, number)
    holds = [{"tag": hold.tag, "kept_digest": hold.digest, "reason": hold.reason} for hold in version.holds]
    if args.output in ("json", "yaml"):
        _print({**_version_row(version), "content_summary": version.summary.counts(), "holds": holds}, args.output)
        return
    counts = version.summary.counts()
    kinds = ("docker.tag", "docker.manifest", "docker.blob")
    _print(
        [{"content": kind, **{part: counts[part].get(kind, 0) for part in counts}} for kind in kinds],
        args.output,
    )
    if holds:
        _print(holds, args.output)


def _repository_row(repository: Repository) -> dict[str, Any]:
    return {
        "name": repository.name,
        "latest_version": repository.latest_number,
        "description": repository.description,
        "created_at": repository.created_at.isoformat(),
        "id": repository.id,
    }


def _version_row(version: RepositoryVersion) -> dict[str, Any]:
    summary = version.summary
    return {
        "number": version.number,
        "base_number": version.base_number,
        "created_at": version.created_at.isoformat(),
        "tags": summary.present.get("docker.tag", 0),
        "manifests": summary.present.get("docker.manifest", 0),
        "blobs": summary.present.get("docker.blob", 0),
        "held_tags": len(version.holds),
    }


def _every(page: Callable[..., Any], *parameters: str, ordering: str = "") -> Iterator[Any]:
    """All items of a paged list, page after page."""
    from registry_sync.domain.pages import PageRequest

    offset, total = 0, 1
    while offset < total:
        part = page(*parameters, PageRequest(offset, 1000, ordering))
        yield from part.items
        offset, total = offset + 1000, part.total_count


def _print(data: Sequence[dict[str, Any]] | dict[str, Any], output: str) -> None:
    """Prints rows as Airflow's own commands do: a table for people, JSON or YAML for programs."""
    from airflow.cli.simple_table import AirflowConsole

    console = AirflowConsole()
    if output == "json":
        console.print_as_json(data)  # type: ignore[arg-type]  # a list is as good; Airflow's own commands give one
    elif output == "yaml":
        console.print_as_yaml(data)  # type: ignore[arg-type]  # as above
    else:
        rows = [data] if isinstance(data, dict) else list(data)
        (console.print_as_table if output == "table" else console.print_as_plain_table)(rows)
