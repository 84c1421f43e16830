"""``serve``, ``distribution`` and ``robot``: what is pulled from here, under which names, and who may."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from registry_sync.cli.command_context import confirm, errors_shown, every, print_fields, print_rows, usable_database
from registry_sync.db.database import Database
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Page, PageRequest
from registry_sync.domain.serving import Distribution, DistributionSpec, PulledTag, Robot
from registry_sync.hooks.settings import load_settings


def serve(args: Namespace) -> None:
    """Serves until it is told to stop."""
    from registry_sync.serve.server import ServerOptions, serve

    settings = load_settings()
    with usable_database():  # what is wrong with it is said once, and not by each worker
        pass
    with errors_shown():
        serve(
            ServerOptions(
                sql_alchemy_conn=settings.sql_alchemy_conn,
                blob_store=settings.blob_store,
                share_with_group=settings.share_with_group,
                host=args.host,
                port=args.port,
                workers=args.workers,
                certificate=args.certificate,
                key=args.key,
                login_url=settings.pull_login_url,
                trusted_proxies=settings.pull_trusted_proxies,
                blob_delivery=settings.blob_delivery.value,
                signed_url_seconds=settings.signed_url_seconds,
                contact=settings.contact,
                metrics=settings.pull_metrics,
                access_log=settings.pull_access_log,
            )
        )


def list_distributions(args: Namespace) -> None:
    """Every distribution, and what it serves."""
    with usable_database() as database:
        found = list(every(database.distributions.page))
        names = _repository_names(database, found)
    print_rows([_distribution_row(names, distribution) for distribution in found], args.output)


def show_distribution(args: Namespace) -> None:
    """What is known of a distribution."""
    with usable_database() as database:
        print_fields(_distribution_fields(database, database.distributions.by_name(args.name)), args.output)


def create_distribution(args: Namespace) -> None:
    """A new distribution."""
    with usable_database() as database:
        repository = database.repositories.by_name(args.repository or args.name)
        spec = DistributionSpec(
            name=args.name,
            base_path=args.base_path or args.name,
            repository_id=repository.id,
            version_number=args.number,
            is_private=not args.public,
        )
        made = database.distributions.create(spec)
        _announce(database, None, made)
        print_fields(_distribution_fields(database, made), args.output)


def change_distribution(args: Namespace) -> None:
    """A distribution changed where options were given."""
    with usable_database() as database:
        values: dict[str, Any] = {}
        if args.repository is not None:
            values |= {"repository_id": database.repositories.by_name(args.repository).id, "version_number": None}
        if args.base_path is not None:
            values["base_path"] = args.base_path
        if args.latest:
            values["version_number"] = None
        elif args.number is not None:
            values["version_number"] = args.number
        if args.public or args.private:
            values["is_private"] = args.private
        found = database.distributions.by_name(args.name)
        changed = database.distributions.change(found.id, lambda spec: replace(spec, **values))
        _announce(database, found, changed)
        print_fields(_distribution_fields(database, changed), args.output)


def _announce(database: Database, before: Distribution | None, now: Distribution) -> None:
    from registry_sync.hooks.asset_events import announce_publication
    from registry_sync.pulp.version_events import publication_event

    announce_publication(database, before, now, publication_event)


def delete_distribution(args: Namespace) -> None:
    """Removes a distribution, after a question."""
    with usable_database() as database:
        found = database.distributions.by_name(args.name)
        confirm(args, f"Serve nothing under {found.base_path} any more?")
        database.distributions.delete(found.id)
    print(f"distribution {args.name} is deleted; the repository stays as it is")


def list_pulls(args: Namespace) -> None:
    """The tags of a repository's latest version, what was pulled longest ago first."""
    since = None if args.unused_days is None else utc_now() - timedelta(days=args.unused_days)
    with usable_database() as database:
        repository = database.repositories.by_name(args.name)

        def page(request: PageRequest) -> Page[PulledTag]:
            return database.last_pulls.tags(repository.id, replace(request, ordering="last_pulled"), unused_since=since)

        rows = [{"tag": tag.name, "last_pulled": tag.last_pulled, "digest": tag.digest} for tag in every(page)]
    print_rows(rows, args.output, always=("last_pulled",))


def list_robots(args: Namespace) -> None:
    """Every robot; its secret cannot be shown."""
    with usable_database() as database:
        rows = [_robot_row(robot) for robot in every(database.robots.page)]
    print_rows(rows, args.output)


def create_robot(args: Namespace) -> None:
    """A new robot; prints its secret, once."""
    with usable_database() as database:
        expires_at = None if args.days is None else utc_now() + timedelta(days=args.days)
        robot, secret = database.robots.create(args.name, args.scope or (), expires_at=expires_at)
    print_fields({**_robot_row(robot), "secret": secret}, args.output)


def revoke_robot(args: Namespace) -> None:
    """Removes a robot, after a question."""
    with usable_database() as database:
        confirm(args, f"Revoke the robot {args.name}? What logs in with it pulls nothing private any more.")
        database.robots.revoke(args.name)
    print(f"robot {args.name} is revoked; tokens that it has end within minutes")


def _repository_names(database: Database, found: Iterable[Distribution]) -> dict[str, str]:
    served = (distribution.repository_id for distribution in found)
    return database.repositories.names(repository_id for repository_id in served if repository_id is not None)


def _distribution_row(names: Mapping[str, str], distribution: Distribution) -> dict[str, Any]:
    """``names`` has those of repositories by their ids; one that was deleted meanwhile is shown as none."""
    return {
        "name": distribution.name,
        "base_path": distribution.base_path,
        "repository": names.get(distribution.repository_id or ""),
        "version": "latest" if distribution.version_number is None else distribution.version_number,
        "access": "private" if distribution.is_private else "public",
        "id": distribution.id,
    }


def _distribution_fields(database: Database, distribution: Distribution) -> dict[str, Any]:
    return {
        **_distribution_row(_repository_names(database, [distribution]), distribution),
        "labels": dict(distribution.labels),
        "created_at": distribution.created_at,
        "updated_at": distribution.updated_at,
    }


def _robot_row(robot: Robot) -> dict[str, Any]:
    return {
        "name": robot.name,
        "scopes": robot.scopes,
        "created_at": robot.created_at,
        "expires_at": robot.expires_at,
    }
