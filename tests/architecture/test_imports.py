"""The picture of the parts in docs/explanation/architecture.md, held against the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "plugins" / "registry_sync"
DAGS = Path(__file__).parents[2] / "dags"

#: For each part, the other parts it may import. ``errors`` and ``domain`` may be imported by all below them.
MAY_IMPORT = {
    "errors": set(),
    "domain": {"errors"},
    "oci": {"errors", "domain"},
    "blobs": {"errors", "domain"},
    "db": {"errors", "domain"},
    "sync": {"errors", "domain"},
    "hooks": {"errors", "domain", "oci", "blobs", "db"},
    "operators": {"errors", "domain", "hooks", "sync"},
    "api": {"errors", "domain", "blobs", "db", "hooks"},
    "cli": {"errors", "domain", "blobs", "db", "hooks", "sync"},
    "listener": {"operators"},
    "plugin": {"api", "hooks", "listener"},
    "provider": set(),
    "__init__": set(),
}
#: Outside libraries that belong to some parts only.
BELONGS_ONLY_TO = {
    "requests": {"oci"},
    "urllib3": {"oci"},
    "boto3": {"hooks"},
    "botocore": {"hooks"},
    "fsspec": {"blobs"},
    "upath": {"blobs"},
    "sqlalchemy": {"db", "listener"},  # the listener works in the session of Airflow's own scheduler
    "alembic": {"db"},
    "airflow": {"hooks", "operators", "plugin", "provider", "cli", "api", "listener"},
    "fastapi": {"api"},
    "starlette": {"api"},
}


def _part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def _imports(path: Path, *, types_too: bool) -> Iterator[str]:
    """Full names of the modules that a file imports; what only type checkers import is left out on demand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = set()
    if not types_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                hidden |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_parts_above_it(path: Path) -> None:
    part = _part(path)
    allowed = MAY_IMPORT[part] | {part}
    for name in _imports(path, types_too=part != "operators"):
        if name.startswith("registry_sync.") and name != "registry_sync.__version__":
            assert name.split(".")[1] in allowed, f"{part} may not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_an_outside_library_stays_in_its_part(path: Path) -> None:
    for name in _imports(path, types_too=True):
        owners = BELONGS_ONLY_TO.get(name.split(".")[0])
        assert owners is None or _part(path) in owners, f"{_part(path)} may not import {name}"


@pytest.mark.parametrize("path", sorted(DAGS.rglob("*.py")), ids=lambda path: path.name)
def test_a_dag_imports_only_operators_and_the_sdk(path: Path) -> None:
    for name in _imports(path, types_too=True):
        root = name.split(".")[0]
        if root == "registry_sync":
            assert name.split(".")[1] == "operators", name
        elif root == "airflow":
            assert name.startswith(("airflow.sdk", "airflow.providers.standard")), name
        else:
            assert root in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_has_the_name_of_a_standard_library_module(path: Path) -> None:
    name = path.stem if path.stem != "__init__" else path.parent.name
    assert name not in sys.stdlib_module_names


def test_every_module_has_a_docstring_that_says_its_rule() -> None:
    missing = [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert missing == []


def test_no_module_is_longer_than_600_lines() -> None:
    long = {str(path): length for path in MODULES if (length := len(path.read_text().splitlines())) > 600}
    assert long == {}


def test_no_function_is_longer_than_80_lines() -> None:
    long = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > 80 and "migrations" not in path.parts:
                    long.append(f"{path}:{node.name} {length}")
    assert long == []
