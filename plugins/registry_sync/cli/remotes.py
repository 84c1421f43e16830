"""``remote``: remotes listed and shown. They hold no secret: credentials are in connections."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from functools import partial
from typing import Any

from registry_sync.cli.printing import print_fields, print_rows
from registry_sync.cli.running import every, usable_database
from registry_sync.domain.private_keys import split_private_keys
from registry_sync.domain.records import Remote


def list_all(args: Namespace) -> None:
    """Every remote: where it reads from, and what."""
    with usable_database() as database:
        page = partial(database.remotes.page, name_contains=args.name)
        rows = [_row(remote) for remote in every(page)]
    print_rows(rows, args.output)


def show(args: Namespace) -> None:
    """Everything that was said of a remote."""
    with usable_database() as database:
        remote = database.remotes.by_name(args.name)
    said = {field.name: _shown(getattr(remote.spec, field.name)) for field in fields(remote.spec)}
    print_fields(
        {**said, "created_at": remote.created_at, "updated_at": remote.updated_at, "id": remote.id}, args.output
    )


def _shown(value: Any) -> Any:
    """Without a private key, which earlier releases took among certificates."""
    return split_private_keys(value)[0] if isinstance(value, str) else value


def _row(remote: Remote) -> dict[str, Any]:
    spec = remote.spec
    return {
        "name": spec.name,
        "url": spec.url,
        "upstream_name": spec.upstream_name,
        "policy": spec.policy,
        "include_tags": spec.include_tags,
        "conn_id": spec.conn_id,
        "id": remote.id,
    }
