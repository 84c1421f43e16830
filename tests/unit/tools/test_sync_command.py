"""The parameters of ``make sync``, and its report of the result."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local_airflow import sync_command
from local_airflow.__main__ import requested_port
from local_airflow.dag_run import TaskState, error_line
from local_airflow.errors import LocalAirflowError, SyncFailed
from local_airflow.layout import Layout
from local_airflow.sync_command import (
    as_typed_here,
    parameters,
    progress_line,
    refusal,
    stored_selection,
    task_of,
    why_docker_hub_is_missing,
)
from local_airflow.terminal import Board


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (
            {},
            {
                "repository": "hello-world",
                "url": "https://registry-1.docker.io",
                "upstream_name": "library/hello-world",
            },
        ),
        (
            {"REMOTE": "https://quay.io/", "NAME": "podman/hello", "REPOSITORY": "mine"},
            {"repository": "mine", "url": "https://quay.io", "upstream_name": "podman/hello"},
        ),
        (
            {"NAME": "alpine", "TAGS": "3.*, latest", "POLICY": "on_demand", "MODE": "additive", "CONN": "hub"},
            {
                "repository": "alpine",
                "url": "https://registry-1.docker.io",
                "upstream_name": "alpine",
                "tags": ["3.*", "latest"],
                "policy": "on_demand",
                "mode": "additive",
                "conn_id": "hub",
            },
        ),
        (
            {"NAME": "team/app", "PUBLISH_AS": "mirror/app"},
            {
                "repository": "app",
                "url": "https://registry-1.docker.io",
                "upstream_name": "team/app",
                "publish_as": "mirror/app",
            },
        ),
        (
            {"REMOTE": "", "NAME": "", "REPOSITORY": "", "TAGS": "", "POLICY": "", "MODE": "", "CONN": ""},
            {
                "repository": "hello-world",
                "url": "https://registry-1.docker.io",
                "upstream_name": "library/hello-world",
            },
        ),
    ],
)
def test_the_variables_become_parameters_of_the_dag(given: dict[str, str], asked: dict[str, Any]) -> None:
    assert parameters(given) == asked


@pytest.mark.parametrize("env", [{"NAME": "library/alpine"}, {"REMOTE": "https://registry-1.docker.io/"}])
def test_what_is_requested_of_docker_hub_by_name_fails_at_once_where_it_is_out_of_reach(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync tries for minutes, and a sample is not what was meant."""
    monkeypatch.setattr(sync_command, "why_out_of_reach", lambda _url: "connection refused")
    with pytest.raises(SyncFailed, match="out of reach: connection refused; library/") as refused:
        why_docker_hub_is_missing(parameters(env), env)
    assert {"REMOTE=", "CONN="} <= set(re.findall(r"[A-Z]+=", str(refused.value)))


@pytest.mark.parametrize(
    ("env", "reason"),
    [({}, "connection refused"), ({"CONN": "hub", "NAME": "a"}, None), ({"REMOTE": "https://quay.io"}, None)],
)
def test_a_sample_takes_the_place_of_docker_hub_alone(
    env: dict[str, str], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_command, "why_out_of_reach", lambda _url: "connection refused")
    assert why_docker_hub_is_missing(parameters(env), env) == reason


def test_lists_are_given_with_blanks_or_commas() -> None:
    asked = parameters({"TAGS": "3.*", "EXCLUDE_TAGS": "3.1 3.2", "PLATFORMS": "linux/amd64,linux/arm64"})
    assert asked["exclude_tags"] == ["3.1", "3.2"]
    assert asked["platforms"] == ["linux/amd64", "linux/arm64"]


def test_a_value_that_the_dag_refuses_is_named_with_its_variable_and_what_is_possible() -> None:
    refused = (
        "POST /api/v2/dags/registry_sync/dagRuns: 400 Invalid input for param mode: 'mirorr' is not one of "
        "['mirror', 'additive']\n\nFailed validating 'enum' in schema:\n    {'type': 'string'}"
    )
    assert refusal(refused, {"mode": "mirorr"}) == "MODE=mirorr cannot be used: MODE is mirror or additive"
    assert refusal("503 away", {}) == "503 away"


def test_a_failed_sync_says_that_options_stay_unless_nothing_was_stored() -> None:
    assert stored_selection(["OtherUpstream: remote 'app' is …"], "look") == []
    (line,) = stored_selection(["NothingSynced: no tag is let in"], "look")
    assert "TAGS=* selects all tags. The log of look has" in line


def test_tasks_are_known_by_their_operators() -> None:
    tasks = [
        TaskState(task_id=name, map_index=-1, label="", state="success", try_number=1, seconds=1, operator=operator)
        for name, operator in (("look", "ListTagsOperator"), ("group.keep", "CommitVersionOperator"))
    ]
    assert task_of("CommitVersionOperator", tasks) == "group.keep"


def test_no_password_is_repeated_of_a_value_that_is_refused() -> None:
    refused = "400 Invalid input for param url: 'https://joe:hunter22@host/' does not match"
    reported = refusal(refused, {"url": "https://joe:hunter22@host/"})
    assert reported.startswith("REMOTE=https://***@host/ cannot be used")


def test_a_word_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(LocalAirflowError, match="REPLACE_UPSTREAM=yes cannot be used: it is true or false"):
        parameters({"REPLACE_UPSTREAM": "yes"})


def test_what_a_message_says_to_set_or_run_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    reported = as_typed_here(
        "If it is meant, say replace_upstream (Replace the upstream in the form, --replace-upstream of the command); "
        "or run: airflow registry-sync run approve 'manual__1'",
        layout,
    )
    assert reported.startswith("If it is meant, set REPLACE_UPSTREAM=true; or run: AIRFLOW_HOME=")
    assert f"{layout.program} registry-sync run approve 'manual__1'" in reported


@pytest.mark.parametrize("given", ["TAG=latest", "REPOSITRY=mine"])
def test_a_variable_that_is_none_is_refused_with_the_list(given: str) -> None:
    checkout = Path(__file__).parents[3]
    command = ["make", "--dry-run", "sync", given]
    made = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert f"make sync does not know {given.partition('=')[0]}; it accepts REMOTE NAME REPOSITORY TAGS" in made.stderr


@pytest.mark.parametrize(("text", "port"), [("", None), ("8081", 8081), ("65535", 65535)])
def test_a_port_is_read(text: str, port: int | None) -> None:
    assert requested_port({"PORT": text}) == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80 80", "²"])
def test_what_is_no_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(LocalAirflowError, match="PORT="):
        requested_port({"PORT": text})


def _task(**changes: Any) -> TaskState:
    response = {"task_id": "fetch_blobs", "map_index": 2, "rendered_map_index": "9 blobs", "state": "success"}
    return TaskState.parse({**response, "try_number": 1, "duration": 1.26, **changes})


def test_a_line_reports_task_index_state_seconds_and_label() -> None:
    assert progress_line(_task()).split() == ["fetch_blobs[2]", "success", "1.3", "s", "9", "blobs"]


def test_a_task_that_is_not_mapped_has_neither_index_nor_label() -> None:
    line = progress_line(_task(map_index=-1, rendered_map_index=None, state="queued", duration=None))
    assert line.split() == ["fetch_blobs", "queued"]


def test_an_index_in_place_of_a_label_is_not_repeated() -> None:
    assert progress_line(_task(rendered_map_index="2")).split() == ["fetch_blobs[2]", "success", "1.3", "s"]


@pytest.mark.parametrize(
    ("kind", "message", "line"),
    [
        ("RateLimited", "quay.io: come back later", "RateLimited: quay.io: come back later"),
        ("AirflowFailException", "NotFound: no such repository", "NotFound: no such repository"),
        ("AirflowFailException", "", "AirflowFailException"),
        ("KeyError", "", "KeyError"),
    ],
)
def test_an_error_is_reported_in_one_line(kind: str, message: str, line: str) -> None:
    assert error_line(kind, message) == line


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_change_is_a_line_where_no_terminal_is() -> None:
    stream = io.StringIO()
    board = Board(stream)
    for text in ("a queued", "a running"):
        board.show("a", text)
    assert stream.getvalue() == "a queued\na running\n"


def test_a_line_changes_where_it_stands_on_a_terminal() -> None:
    stream = _Terminal()
    board = Board(stream)
    board.show("a", "a queued")
    board.show("b", "b queued")
    board.show("a", "a running")
    assert stream.getvalue() == "a queued\nb queued\n\x1b[2A\r\x1b[2Ka running\x1b[2B\r"
