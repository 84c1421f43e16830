"""``repository``: repositories listed and shown."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from registry_sync.cli.printing import print_fields, print_rows
from registry_sync.cli.running import every, usable_database
from registry_sync.domain.records import Repository


def list_all(args: Namespace) -> None:
    """Every repository with its latest version."""
    with usable_database() as database:
        page = partial(database.repositories.page, name_contains=args.name)
        rows = [_row(repository) for repository in every(page)]
    print_rows(rows, args.output)


def show(args: Namespace) -> None:
    """What is known of a repository."""
    with usable_database() as database:
        repository = database.repositories.by_name(args.name)
        latest = database.versions.latest(repository.id)
    present = {} if latest is None else latest.summary.present
    fields = {
        **_row(repository),
        "retain_versions": repository.retain_versions,
        "labels": dict(repository.labels),
        "updated_at": repository.updated_at,
        "tags": present.get("docker.tag", 0),
        "manifests": present.get("docker.manifest", 0),
        "blobs": present.get("docker.blob", 0),
        "held_tags": 0 if latest is None else len(latest.holds),
    }
    print_fields(fields, args.output)


def _row(repository: Repository) -> dict[str, Any]:
    return {
        "name": repository.name,
        "latest_version": repository.latest_number,
        "description": repository.description,
        "created_at": repository.created_at,
        "id": repository.id,
    }
