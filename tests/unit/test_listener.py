"""What goes wrong while the end of a run is recorded is logged, and never reaches the scheduler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry_sync.listener import RunNotes


@pytest.mark.parametrize("end", ["on_dag_run_success", "on_dag_run_failed"])
def test_an_error_at_the_end_of_a_run_is_logged(caplog: pytest.LogCaptureFixture, end: str) -> None:
    of_no_database = cast("Any", SimpleNamespace(dag_id="mirror", run_id="manual__1"))
    getattr(RunNotes(), end)(of_no_database)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert "the end of the run manual__1 of mirror could not be recorded" in record.getMessage()
