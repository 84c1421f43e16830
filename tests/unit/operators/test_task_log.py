"""What reaches the log of a task: errors of ours in one line, held tags as warnings, defects with their traceback."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.errors import NothingSynced, RegistrySyncError, ServerUnavailable
from registry_sync.hooks.dag_runs import triggered_by
from registry_sync.operators.stage import TaskReport, open_stage


def logged(problem: BaseException) -> dict[str, Any]:
    """The record that Airflow's task runner makes of what ended a task."""
    records: list[dict[str, Any]] = []

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        records.append(dict(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    context = {"ti": SimpleNamespace(dag_id="d", run_id="r", try_number=1, max_tries=0)}
    try:
        with open_stage(context):
            raise problem
    except (RegistrySyncError, AirflowFailException, ZeroDivisionError):
        structlog.get_logger("task").exception("Task failed with exception")
    finally:
        structlog.configure(**before)
    (record,) = records
    return record


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (
            NothingSynced("it lists no tags,\nso there is nothing"),
            "NothingSynced: it lists no tags, so there is nothing",
        ),
        (ServerUnavailable("down"), "ServerUnavailable: down"),
    ],
)
def test_an_error_that_is_understood_is_one_line(problem: RegistrySyncError, line: str) -> None:
    assert logged(problem) == {"event": line}


def test_a_defect_keeps_its_traceback() -> None:
    assert logged(ZeroDivisionError("a defect")) == {"event": "Task failed with exception", "exc_info": True}


def test_what_a_person_should_see_stands_out() -> None:
    lines: list[tuple[str, str]] = []

    def note(level: str) -> Any:
        return lambda text, *given: lines.append((level, text % given))

    report = TaskReport(SimpleNamespace(info=note("info"), warning=note("warning")))
    report("61 tags, 100 % new")
    report.warning("1 tag is held")
    assert lines == [("info", "61 tags, 100 % new"), ("warning", "1 tag is held")]


@pytest.mark.parametrize(
    ("given", "who"),
    [
        ({"run_type": "manual", "triggering_user_name": "anna"}, "anna"),
        ({"run_type": "manual", "triggering_user_name": None}, None),
        ({"run_type": "scheduled", "triggering_user_name": None}, "schedule"),
        ({"run_type": "backfill", "triggering_user_name": "anna"}, "backfill of anna"),
        (
            {
                "run_type": "asset_triggered",
                "consumed_asset_events": [
                    SimpleNamespace(asset=SimpleNamespace(name="registry_sync/b")),
                    SimpleNamespace(asset=SimpleNamespace(name="registry_sync/a")),
                ],
            },
            "asset registry_sync/a, registry_sync/b",
        ),
        ({}, None),
    ],
)
def test_who_or_what_began_a_run_is_known(given: dict[str, Any], who: str | None) -> None:
    assert triggered_by(SimpleNamespace(**given)) == who
