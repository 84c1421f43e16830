"""What ``make sync`` asks for, and how it tells what became of it."""

from __future__ import annotations

import io
from typing import Any

import pytest

from local_airflow.__main__ import asked_port
from local_airflow.dag_run import TaskState, error_line
from local_airflow.errors import LocalAirflowError
from local_airflow.sync_command import parameters, progress_line
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


@pytest.mark.parametrize(("text", "port"), [("", None), ("8081", 8081), ("65535", 65535)])
def test_a_port_is_read(text: str, port: int | None) -> None:
    assert asked_port({"PORT": text}) == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80 80", "²"])
def test_what_is_no_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(LocalAirflowError, match="PORT="):
        asked_port({"PORT": text})


def _task(**changes: Any) -> TaskState:
    answer = {"task_id": "fetch_blobs", "map_index": 2, "rendered_map_index": "9 blobs", "state": "success"}
    return TaskState.parse({**answer, "try_number": 1, "duration": 1.26, **changes})


def test_a_line_tells_task_index_state_seconds_and_label() -> None:
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
def test_an_error_is_told_in_one_line(kind: str, message: str, line: str) -> None:
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
