"""The commands ``repository`` and ``remote``: lists, details, creation, changes and deletion."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from registry_sync.cli.arguments import REMOTE_OPTIONS
from registry_sync.cli.command_context import confirm, every, named, print_fields, print_rows, usable_database
from registry_sync.domain.private_keys import split_private_keys
from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import Repository, RepositorySpec, checked_name
from registry_sync.domain.references import split_patterns
from registry_sync.domain.remote import (
    OPTIONS,
    Option,
    Remote,
    RemoteSpec,
    Typed,
    is_own_connection,
    parameter_name,
)
from registry_sync.errors import ConfigurationError, InvalidReference


def list_repositories(args: Namespace) -> None:
    """Lists repositories with their latest version."""
    with usable_database() as database:
        page = partial(database.repositories.page, name_contains=args.name)
        rows = [_repository_row(repository) for repository in every(page)]
    print_rows(rows, args.output)


def show_repository(args: Namespace) -> None:
    """Shows a repository."""
    with usable_database() as database:
        repository = named(database.repositories, args.name)
        latest = database.versions.latest(repository.id)
    present = {} if latest is None else latest.summary.present
    fields = {
        **_repository_row(repository),
        "tags": present.get("docker.tag", 0),
        "manifests": present.get("docker.manifest", 0),
        "blobs": present.get("docker.blob", 0),
        "held_tags": 0 if latest is None else len(latest.holds),
    }
    print_fields(fields, args.output)


def create_repository(args: Namespace) -> None:
    """Creates an empty repository."""
    with usable_database() as database:
        spec = _changed_repository(RepositorySpec(args.name), args)
        print_fields(_repository_row(database.repositories.create(spec)), args.output)


def change_repository(args: Namespace) -> None:
    """Changes the given fields of a repository; its versions stay."""
    with usable_database() as database:
        found = named(database.repositories, args.repository)
        changed = database.repositories.change(found.id, lambda spec: _changed_repository(spec, args))
        print_fields(_repository_row(changed), args.output)


def _changed_repository(spec: RepositorySpec, args: Namespace) -> RepositorySpec:
    labels = {**spec.labels, **dict(args.label or ())}
    values: dict[str, Any] = {"labels": {name: value for name, value in labels.items() if value}}
    if args.description is not None:
        values["description"] = args.description or None
    if args.retain_versions is not None:
        values["retain_versions"] = args.retain_versions or None
    if args.name is not None:
        values["name"] = checked_name(args.name, "give the name of the repository")
    return replace(spec, **values)


def delete_repository(args: Namespace) -> None:
    """Deletes a repository with its versions, after confirmation; content goes with the next garbage collection."""
    with usable_database() as database:
        found = named(database.repositories, args.name)
        count = database.versions.page(found.id).total_count
        confirm(args, f"Delete the repository {found.name} with {format_count(count, 'version')}?")
        database.repositories.delete(found.id)
    print(f"repository {found.name} is deleted; airflow registry-sync gc deletes content that nothing else references")


def _repository_row(repository: Repository) -> dict[str, Any]:
    return {
        "name": repository.name,
        "latest_version": repository.latest_number,
        "updated_at": repository.updated_at,
        "labels": dict(repository.labels),
        "description": repository.description,
        "retain_versions": repository.retain_versions,
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
        remote = named(database.remotes, args.name)
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


def create_remote(args: Namespace) -> None:
    """Creates a remote; nothing is synced yet."""
    with usable_database() as database:
        if not args.url or not args.upstream_name:
            missing = "--upstream-name" if args.url else "--url"
            raise ConfigurationError(f"{missing} is missing: say where the remote is, such as --url https://quay.io")
        spec = RemoteSpec.parse(args.name, args.url, args.upstream_name, **_options(args))
        _refuse_own_connection(spec, None)
        made = database.remotes.create(replace(spec, labels=_labels({}, args.label)))
        print_fields(_remote_row(made), args.output)


def change_remote(args: Namespace) -> None:
    """Changes the given options of a remote, for later syncs."""
    places = {"name": args.name, "url": args.url, "upstream_name": args.upstream_name}
    with usable_database() as database:
        found = named(database.remotes, args.remote)
        values = _options(args) | {name: value for name, value in places.items() if value is not None}

        def change(spec: RemoteSpec) -> RemoteSpec:
            changed = replace(spec.changed(**values), labels=_labels(spec.labels, args.label))
            _refuse_own_connection(changed, spec)
            return changed

        print_fields(_remote_row(database.remotes.change(found.id, change)), args.output)


def delete_remote(args: Namespace) -> None:
    """Deletes a remote with the connections that were made for it, after confirmation; synced content stays."""
    from registry_sync.hooks import own_connections

    with usable_database() as database:
        found = named(database.remotes, args.name)
        confirm(args, f"Delete the remote {found.spec.name} ({found.spec.source})?")
        own_connections.delete_remote(database, found.id)
    print(f"remote {args.name} is deleted; what was synced from it stays")


def _labels(present: Mapping[str, str], given: Iterable[tuple[str, str]] | None) -> dict[str, str]:
    labels = {**present, **dict(given or ())}
    return {name: value for name, value in labels.items() if value}


def _options(args: Namespace) -> dict[str, Any]:
    """The options that were given, by their names in :class:`RemoteSpec`. Raises :class:`ConfigurationError`."""
    destinations = {"tags": "tag", "exclude_tags": "exclude_tag", "platforms": "platform"}
    by_parameter = {parameter_name(name): name for name in OPTIONS}
    found: dict[str, Any] = {}
    for parameter in REMOTE_OPTIONS:
        value = getattr(args, destinations.get(parameter, parameter))
        if value is not None:
            found[by_parameter[parameter]] = _typed(by_parameter[parameter], value)
    for name, text in args.set or ():
        field = by_parameter.get(name, name)
        if field not in OPTIONS or field == "labels":
            known = ", ".join(sorted(parameter_name(option) for option in OPTIONS if option != "labels"))
            raise ConfigurationError(f"a remote has no option {name!r}; it has {known}")
        found[field] = _typed(field, text)
    return found


def _typed(field: str, value: Any) -> Any:
    """A value as its option reads it; empty text is the option's default, ``none`` no limit or selection."""
    option = OPTIONS[field]
    if value in ("", [""]):
        return getattr(_DEFAULTS, field)
    if value in ("none", ["none"]) and "None" in str(RemoteSpec.__annotations__[field]):
        return None
    if option.typed is Typed.LIST:
        return tuple(value if isinstance(value, list) else split_patterns(value))
    if option.typed is not Typed.TEXT:
        return value
    if isinstance(value, str) and isinstance(option.minimum, int | float) and "share" in field:
        value = _share(field, value)
    _check_bounds(field, option, value)
    return value


def _share(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{field} is {text[:40]!r}; give a number from 0 to 1, or none") from None


def _check_bounds(field: str, option: Option, value: Any) -> None:
    if option.minimum is None or isinstance(value, str):
        return
    if not option.minimum <= value <= (option.maximum or value):
        raise ConfigurationError(f"{field} is {value}; give a number from {option.minimum} to {option.maximum}")


#: What an empty value stands for.
_DEFAULTS = RemoteSpec.parse("none", "https://registry.example", "none")


def _refuse_own_connection(changed: RemoteSpec, before: RemoteSpec | None) -> None:
    """Raises :class:`InvalidReference` where credentials would be used for what they were not made for."""
    present = None if before is None else before.conn_id
    if changed.conn_id != present and is_own_connection(changed.conn_id):
        raise InvalidReference(f"connection {changed.conn_id!r} belongs to the remote it was made for")
    is_kept = changed.conn_id is not None and changed.conn_id == present and is_own_connection(present)
    if before is not None and is_kept and changed.url != before.url:
        raise InvalidReference(
            f"the credentials of this remote are for {before.url}; give another connection with --conn-id, or none "
            "with --conn-id ''"
        )
