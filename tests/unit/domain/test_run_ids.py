"""The ids of DAG runs that are started here."""

from __future__ import annotations

import re

import pytest

from registry_sync.domain.runs import run_id_about

#: Airflow's default of ``[scheduler] allowed_run_id_pattern``, and the length of its column.
_ALLOWED, _LONGEST = r"^[A-Za-z0-9_.~:+-]+$", 250


@pytest.mark.parametrize(
    ("repository", "shown"),
    [
        ("library/alpine", "library-alpine"),
        ("Größe & Farbe", "Gr-e-Farbe"),
        ("a" * 255, "a" * 80),
        ("日本", "-"),
        ("a..b/c", "a-b-c"),
    ],
)
def test_the_id_of_a_run_names_the_repository_as_far_as_airflow_permits(repository: str, shown: str) -> None:
    run_id = run_id_about("sync", repository, "2026-11-28T18:13:00.123456+00:00")
    assert run_id == f"sync__{shown}__2026-11-28T18:13:00.123456+00:00"
    assert re.fullmatch(_ALLOWED, run_id)
    assert len(run_id) <= _LONGEST
