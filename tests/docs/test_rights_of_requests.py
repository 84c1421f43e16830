"""The rights that the documentation says each request takes, compared with the check of every route."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
from fastapi.routing import APIRoute

from registry_sync.api import access
from support.documents import DOCS
from support.rest_api import application

PREFIX = "/api/v3/"
#: The right and the least role of each check, as ``tests/integration/api/test_access.py`` tries it out.
RIGHTS = {
    "SIGNED_IN": ("to be signed in", "any"),
    "READ": ("read the sync DAG", "viewer"),
    "READ_TASKS": ("read runs of the sync DAG", "viewer"),
    "SYNC": ("create runs of the sync DAG", "user"),
    "CHANGE_RUN": ("change runs of the sync DAG", "user"),
    "DELETE_RUN": ("delete runs of the sync DAG", "user"),
    "CREATE": ("create connections", "op"),
    "CHANGE": ("change connections", "op"),
    "DELETE": ("delete connections", "op"),
}
CHECKS = {id(getattr(access, name)[0].dependency): right for name, right in RIGHTS.items()}


def documented() -> list[tuple[str, str, tuple[str, str]]]:
    """Method, pattern, and the right with its role, in the order of the lines."""
    text = (DOCS / "reference" / "rights.md").read_text(encoding="utf-8")
    lines = text.partition("<!-- rights of requests -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    found = []
    for line in lines:
        requests, right, role = (cell.strip() for cell in line.strip("|").split("|"))
        found += [(method, pattern, (right, role)) for method, pattern in re.findall(r"`(\w+) (\S+)`", requests)]
    return found


def routes(found: Any = None) -> Iterator[APIRoute]:
    for route in application().routes if found is None else found:
        if isinstance(route, APIRoute):
            yield route
        elif inner := getattr(route, "routes", None):
            yield from routes(inner)


def right_of(check: access.AccessCheck) -> tuple[str, str]:
    """What a check asks for; a route may start runs of another DAG than the sync DAG."""
    if isinstance(check, access.DagCheck) and check.dag_id is not None:
        return f"create runs of `{check.dag_id}`", "user"
    return CHECKS[id(check)]


def checks(route: APIRoute) -> tuple[str, str]:
    """The rights that its checks ask for, with the greatest of their roles; those of everybody where it has none."""
    called = [dependency.call for dependency in route.dependant.dependencies]
    found = [right_of(check) for check in called if isinstance(check, access.AccessCheck)]
    roles = ["everybody", "any", "viewer", "user", "op"]
    return ", and ".join(right for right, _ in found) or "nothing", max(
        (role for _, role in found), key=roles.index, default="everybody"
    )


def test_every_request_takes_the_right_that_is_documented() -> None:
    lines, used = documented(), set()
    for route in routes():
        for method in route.methods - {"HEAD", "OPTIONS"}:
            path = route.path.removeprefix(PREFIX)
            fitting = [line for line in lines if line[0] == method and fnmatchcase(path, line[1])]
            assert fitting, f"docs/reference/rights.md has no line for {method} {path}"
            used.add(fitting[0][:2])
            assert checks(route) == fitting[0][2], f"{method} {path} is not as docs/reference/rights.md says"
    assert {line[:2] for line in lines} == used, "a line fits no request"


@pytest.mark.parametrize("right", RIGHTS.values(), ids=list(RIGHTS))
def test_every_right_has_a_line(right: tuple[str, str]) -> None:
    assert right in [line[2] for line in documented()]
