"""Rows for people and for programs."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from registry_sync.cli.command_context import print_fields, print_rows
from registry_sync.domain.digests import Digest
from registry_sync.domain.remote import Policy

MOMENT = datetime(2026, 3, 1, 12, 0, 5, 123456, tzinfo=timezone(timedelta(hours=2)))
ROW: dict[str, Any] = {
    "digest": Digest.of(b"a"),
    "policy": Policy.ON_DEMAND,
    "size_bytes": 1_300_000_000,
    "tags": 12_345,
    "created_at": MOMENT,
    "include_tags": ("3.*", "[ab]*"),
    "is_usable": True,
    "labels": {"team": "x"},
    "conn_id": None,
}


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_people_get_units_thousands_and_seconds_and_globs_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(ROW, "table")
    rows = dict(line.split("|", 1) for line in out(capsys).splitlines() if "|" in line)
    shown = {name.strip(): value.strip() for name, value in rows.items()}
    assert shown["size"] == "1.2 GiB"
    assert shown["tags"] == "12,345"
    assert shown["created at"] == "2026-03-01 10:00:05"
    assert shown["include tags"] == "3.*, [ab]*"
    assert (shown["is usable"], shown["labels"], shown["conn id"]) == ("yes", "team=x", "-")
    assert (shown["policy"], shown["digest"]) == ("on_demand", ROW["digest"][:19])


def test_a_count_and_its_bytes_are_two_columns_and_an_empty_column_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"content": "blob", "added": 3, "added_bytes": 2048, "moved": None, "labels": {}},
        {"content": "tag", "added": 0, "added_bytes": None, "moved": None, "labels": {}},
    ]
    print_rows(rows, "table")
    head, _, first, second, *_ = out(capsys).splitlines()
    assert [cell.strip() for cell in head.split("|")] == ["content", "added", "added size"]
    assert [cell.strip() for cell in first.split("|")] == ["blob", "3", "2.0 KiB"]
    assert [cell.strip() for cell in second.split("|")] == ["tag", "0", "-"]


def test_an_id_stands_whole_on_one_line_however_narrow_the_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what people paste into the next command."""
    from airflow.cli import simple_table

    monkeypatch.setattr(simple_table, "is_tty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    run_id = "manual__2026-11-28T18:13:00.123456+00:00_AbCdEfGh"
    print_rows([{"run_id": run_id, "dag_id": "registry_sync", "error": "what went wrong " * 20}], "table")
    printed = capsys.readouterr().out
    assert any(run_id in line and "registry_sync" in line for line in printed.splitlines())
    assert "…" not in printed


def test_a_time_stands_whole_on_one_line_however_narrow_the_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_rows([{"name": "a" * 40, "started_at": MOMENT, "finished_at": MOMENT, "error": "b " * 40}], "table")
    assert out(capsys).count("2026-03-01 10:00:05") == 2


def test_a_column_that_was_asked_for_is_there_without_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"tag": "v1", "last_pulled": None}], "table", always=("last_pulled",))
    title, row = (line for line in out(capsys).splitlines() if "|" in line)
    assert [part.strip() for part in title.split("|")] == ["tag", "last pulled"]
    assert [part.strip() for part in row.split("|")] == ["v1", "-"]


def test_programs_get_exact_values(capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.utils import yaml

    print_rows([ROW], "json")
    (read,) = json.loads(out(capsys))
    print_rows([ROW], "yaml")
    assert yaml.safe_load(out(capsys)) == [read]
    assert read == {
        **ROW,
        "policy": "on_demand",
        "created_at": "2026-03-01T12:00:05.123456+02:00",
        "include_tags": ["3.*", "[ab]*"],
    }


def test_plain_columns_have_exact_values_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([ROW], "plain")
    shown = out(capsys)
    assert "1300000000" in shown
    assert "2026-03-01T12:00:05.123456+02:00" in shown
    assert "[ab]*" in shown


def test_json_is_one_line_for_a_pipe_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"reason": "x" * 500 + "[red]ü\n"}] * 3, "json")
    assert len(out(capsys).splitlines()) == 1


@pytest.mark.parametrize("output", ["table", "plain", "json"])
def test_no_rows_are_no_failure(capsys: pytest.CaptureFixture[str], output: str) -> None:
    print_rows([], output)
    assert out(capsys).strip() in ("No data found", "[]")
