"""Migrations are one chain, which leads to the schema that the code needs: two of one number migrate no database."""

from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory

from registry_sync.db import migrations, schema


def test_the_newest_migration_is_the_schema_that_the_code_needs() -> None:
    config = Config()
    config.set_main_option("script_location", str(next(iter(migrations.__path__))))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD_REVISION
