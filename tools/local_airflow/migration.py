"""The migration of Airflow's own database of an instance."""

from __future__ import annotations

from local_airflow.layout import Layout

#: The arguments of ``airflow`` to migrate the database.
COMMAND = ("db", "migrate")


def is_migrated(layout: Layout) -> bool:
    """Whether the installed Airflow has migrated the database."""
    return layout.database.exists() and layout.migrated.exists() and layout.migrated.read_text() == _version(layout)


def record_migrated(layout: Layout) -> None:
    """Records that the installed Airflow has migrated the database."""
    layout.migrated.write_text(_version(layout))


def drop_half_made(layout: Layout) -> None:
    """Removes a database whose first migration did not finish; it has no data yet."""
    if not layout.migrated.exists():
        layout.database.unlink(missing_ok=True)


def _version(layout: Layout) -> str:
    """Name and version of the installed Airflow, without importing it, which takes seconds."""
    found = sorted(layout.python.parent.parent.glob("lib/python3*/site-packages/apache_airflow_core-*.dist-info"))
    return found[-1].name if found else ""
