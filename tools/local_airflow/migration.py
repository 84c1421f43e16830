"""Airflow's own database of an instance, and whether it was brought up already."""

from __future__ import annotations

from local_airflow.layout import Layout

#: What ``airflow`` is called with to bring the database up.
COMMAND = ("db", "migrate")


def is_migrated(layout: Layout) -> bool:
    """Whether the Airflow that is installed has brought the database up."""
    return layout.database.exists() and layout.migrated.exists() and layout.migrated.read_text() == _version(layout)


def note_migrated(layout: Layout) -> None:
    """Keeps in mind that the installed Airflow has brought the database up."""
    layout.migrated.write_text(_version(layout))


def drop_half_made(layout: Layout) -> None:
    """Removes a database that no migration ever finished; it holds nothing yet."""
    if not layout.migrated.exists():
        layout.database.unlink(missing_ok=True)


def _version(layout: Layout) -> str:
    """Name and version of the installed Airflow, without the seconds that importing it takes."""
    found = sorted(layout.python.parent.parent.glob("lib/python3*/site-packages/apache_airflow_core-*.dist-info"))
    return found[-1].name if found else ""
