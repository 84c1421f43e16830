"""What the local settings of a measured Airflow note of each task."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.syncs import airflow_sync
from benchmarks.syncs.airflow_sync import _NOTING, noted_tasks


def test_a_task_notes_its_run_and_its_sizes_however_it_ends(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"__all__": []}
    exec(_NOTING.format(path=str(tmp_path / "tasks")), settings)

    def own(_context: Any) -> None: ...

    assert settings["__all__"] == ["task_policy"]
    task = SimpleNamespace(on_success_callback=[own], on_failure_callback=None, on_skipped_callback=())
    task.on_retry_callback = None
    settings["task_policy"](task)
    assert task.on_success_callback[0] is own
    callbacks = (task.on_success_callback, task.on_failure_callback, task.on_skipped_callback, task.on_retry_callback)
    for callback in {of[-1] for of in callbacks}:
        callback({"ti": SimpleNamespace(run_id="run 1", task_id="list_tags")})
    (noted,) = map(json.loads, (tmp_path / "tasks").read_text().splitlines())
    assert (noted["run"], noted["task"]) == ("run 1", "list_tags")
    assert 10_000 < noted["start_kib"] <= noted["peak_kib"]


def test_a_run_that_has_ended_is_waited_for_until_its_tasks_have_noted_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks"

    def note(run: str) -> None:
        with path.open("a") as file:
            file.write(json.dumps({"run": run, "task": "list_tags"}) + "\n")

    later = threading.Timer(0.05, lambda: (note("run 2"), note("run 1"), note("run 1")))
    later.start()
    assert len(noted_tasks(path, "run 1", 2)) == 2
    later.join()
    monkeypatch.setattr(airflow_sync, "_NOTED_SECONDS", 0.05)
    with pytest.raises(RuntimeError, match="of 2 tasks of run 2 only these"):
        noted_tasks(path, "run 2", 2)
