"""When an Airflow is measured: once it has nothing else to do."""

from __future__ import annotations

from benchmarks.syncs.airflow_sync import await_idle


def test_a_run_begins_when_airflow_has_done_what_was_left() -> None:
    """Its scheduler, which looks for work all the time, takes some of a core even so."""
    used, slept = iter([3.0, 4.2, 4.9, 5.02, 9.0]), list[float]()
    assert await_idle(lambda: next(used), slept.append)
    assert slept == [1.0, 1.0, 1.0]


def test_an_airflow_that_is_never_idle_is_measured_all_the_same() -> None:
    used, slept = iter(range(100)), list[float]()
    assert not await_idle(lambda: next(used), slept.append)
    assert len(slept) == 15
