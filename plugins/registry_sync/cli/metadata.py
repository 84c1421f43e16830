"""``db``: the metadata database made, migrated and looked at."""

from __future__ import annotations

import sys
from argparse import Namespace

from registry_sync.cli.printing import print_fields
from registry_sync.cli.running import configured_database, confirm
from registry_sync.errors import DatabaseError, DatabaseOutdated
from registry_sync.hooks.connection_upgrade import upgrade_connections


def upgrade(_args: Namespace) -> None:
    """Creates or migrates the configured metadata database, and upgrades connections; safe when repeated."""
    with configured_database() as database:
        database.upgrade()
        print(f"{database.location} is at schema {database.revision()}")
        try:
            for change in upgrade_connections(database):
                print(change)
        except DatabaseError as problem:
            print(f"Connections were not looked at: {problem}", file=sys.stderr)  # Airflow may not be set up yet


def check(args: Namespace) -> None:
    """Says whether the configured metadata database can be used; ends with status 1 when not."""
    with configured_database() as database:
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
        print_fields(state, args.output)
    if problem is not None:
        sys.exit(problem)


def downgrade(args: Namespace) -> None:
    """Migrates the configured metadata database back, after asking; what the older schema cannot hold is lost."""
    with configured_database() as database:
        confirm(args, f"Migrate {database.location} back to {args.to_revision}? Records may be lost.")
        database.downgrade(args.to_revision)
        print(f"{database.location} is at schema {database.revision() or 'none'}")
