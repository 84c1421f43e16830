"""The reference of the REST API, held against the API."""

from __future__ import annotations

import re

from registry_sync.pulp.repository_documents import RemoteDocument
from registry_sync.pulp.task_documents import TaskState
from support.documents import DOCS
from support.rest_api import description

TEXT = (DOCS / "reference/rest-api.md").read_text(encoding="utf-8")


def operations() -> list[tuple[str, str]]:
    """Methods and paths."""
    return [(method.upper(), path) for path, found in description()["paths"].items() for method in found]


def has_line(method: str, path: str) -> bool:
    shown = re.sub(r"\{number\}", "<number>", re.sub(r"\{\w+_id\}", "<id>", path.removeprefix("/api/v3/")))
    # What is only at the one of the two paths has its line with that.
    shown_there = f" {shown}`" if "container/container/" in shown else None
    for form, written in (("{sha256}", "<sha256>"), ("container/container/", "docker/docker/")):
        shown = shown.replace(form, written)
    shown = shown.replace("content/container/", "content/docker/")
    lines = [line for line in TEXT.splitlines() if line.startswith("| `") and f"{method}" in line]
    parent = shown.removesuffix("<id>/")
    is_there = shown_there is not None and any(shown_there in line for line in lines)
    return is_there or any(f" {shown}`" in line or (f" {parent}`" in line and "`<id>/`" in line) for line in lines)


def test_every_operation_has_a_line() -> None:
    assert len(operations()) > 80
    assert [operation for operation in operations() if not has_line(*operation)] == []


def test_every_parameter_of_a_list_is_named() -> None:
    named = {
        (path, parameter["name"])
        for path, found in description()["paths"].items()
        for parameter in found.get("get", {}).get("parameters", ())
        if parameter["in"] == "query"
    }
    assert len(named) > 200
    assert {(path, name) for path, name in named if f"`{name}`" not in TEXT} == set()


def test_every_field_of_a_remote_is_named() -> None:
    given = set(RemoteDocument.model_fields) - {"pulp_created", "pulp_href", "pulp_last_updated"}
    assert {field for field in given if f"`{field}`" not in TEXT} == set()


def test_every_state_of_a_task_is_explained() -> None:
    for state in TaskState:
        assert f"| `{state.value}` |" in TEXT


def test_every_status_is_explained() -> None:
    statuses = {
        status for found in description()["paths"].values() for one in found.values() for status in one["responses"]
    }
    table = TEXT[TEXT.index("## What goes wrong") :]
    for status in sorted(status for status in statuses if status >= "400"):
        assert re.search(rf"^\| [\d, ]*{status}", table, re.MULTILINE), status
