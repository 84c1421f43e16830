"""The picture of the parts in docs/explanation/architecture.md, held against the code."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import pytest

PACKAGE = Path(__file__).parents[2] / "plugins" / "registry_sync"
DAGS = Path(__file__).parents[2] / "dags"

#: For each part, the other parts it may import. ``errors`` and ``domain`` may be imported by all below them.
MAY_IMPORT = {
    "errors": set(),
    "domain": {"errors"},
    "pulp": {"errors", "domain"},
    "oci": {"errors", "domain"},
    "blobs": {"errors", "domain"},
    "db": {"errors", "domain"},
    "sync": {"errors", "domain"},
    "hooks": {"errors", "domain", "oci", "blobs", "db"},
    "fleet": {"errors", "domain"},
    "operators": {"errors", "domain", "pulp", "hooks", "sync", "fleet"},
    "triggers": {"errors", "domain", "hooks", "sync"},
    "users": {"errors", "domain", "db"},
    "api": {"errors", "domain", "pulp", "blobs", "db", "hooks", "users"},
    "cli": {"errors", "domain", "pulp", "blobs", "db", "hooks", "sync", "serve", "fleet"},
    "serve": {"errors", "domain", "blobs", "db", "hooks", "users"},
    "listener": {"errors", "domain", "db", "hooks", "operators"},
    "plugin": {"errors", "api", "hooks", "listener", "operators", "serve"},
    "provider": set(),
    "__init__": set(),
}
#: Parts that name classes of parts below them for type checking; at run time they are given them.
TYPED_WITH_REAL_CLASSES = {"operators", "sync", "triggers"}
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
    "airflow": {"hooks", "operators", "triggers", "plugin", "provider", "cli", "api", "listener"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "pydantic": {"pulp", "api"},  # documents as they are shown, and as people send them
    "granian": {"serve"},
    "httpx": {"api", "serve", "users"},
    "jwt": {"serve", "hooks"},
    "markdown_it": {"api"},
    "re2": {"domain"},
    "yaml": {"fleet"},
    "croniter": {"fleet"},
}


@dataclass
class Module:
    """A file, read and parsed once for all tests; ``name`` is how a failure calls it."""

    path: Path
    name: str

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def part(self) -> str:
        """The part of the picture that it belongs to."""
        return self.name.split("/")[0].removesuffix(".py")

    @cached_property
    def imports(self) -> list[str]:
        """Full names of the modules that it imports."""
        return [name for node in self.nodes for name in self._imported(node)]

    @cached_property
    def imports_at_work(self) -> list[str]:
        """Those of :attr:`imports` that not only type checkers import."""
        hidden = {
            id(inner)
            for node in self.nodes
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        return [name for node in self.nodes if id(node) not in hidden for name in self._imported(node)]

    def forget(self) -> None:
        """Lets go of what was read and parsed."""
        for name in ("text", "tree", "nodes", "imports", "imports_at_work"):
            self.__dict__.pop(name, None)

    def _imported(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{self.name}: imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules(folder: Path) -> list[Module]:
    return [Module(path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*.py"))]


MODULES = _modules(PACKAGE)


@pytest.fixture(scope="module", autouse=True)
def parsed_for_these_tests_alone() -> Iterator[None]:
    """The trees take 90 MB, which every later search for garbage would go through."""
    yield
    for module in MODULES:
        module.forget()


def test_no_module_gives_a_name_twice() -> None:
    """What was bound first would be lost without a word, as an argument of a command once was."""
    twice = []
    for module in MODULES:
        names = [
            target.id
            for node in module.tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id not in {used.id for used in _names_in(node.value)}
        ]
        twice += [f"{module.name}: {name}" for name in sorted(set(names)) if names.count(name) > 1]
    assert twice == []


def _names_in(value: ast.expr) -> list[ast.Name]:
    return [node for node in ast.walk(value) if isinstance(node, ast.Name)]


def test_a_part_imports_only_parts_above_it() -> None:
    wrong = []
    for module in MODULES:
        allowed = MAY_IMPORT[module.part] | {module.part}
        for name in module.imports_at_work if module.part in TYPED_WITH_REAL_CLASSES else module.imports:
            is_ours = name.startswith("registry_sync.") and name != "registry_sync.__version__"
            if is_ours and name.split(".")[1] not in allowed:
                wrong.append(f"{module.name}: {module.part} may not import {name}")
    assert len(MODULES) > 100, "the package is where it was"
    assert wrong == []


def test_an_outside_library_stays_in_its_part() -> None:
    wrong = []
    for module in MODULES:
        for name in module.imports:
            owners = BELONGS_ONLY_TO.get(name.split(".")[0])
            if owners is not None and module.part not in owners:
                wrong.append(f"{module.name}: {module.part} may not import {name}")
    assert wrong == []


def test_the_domain_names_nothing_of_the_wire() -> None:
    wrong = []
    for module in MODULES:
        if module.part == "domain":
            said = [
                str(name)
                for node in module.nodes
                for field in ("id", "attr", "arg", "name", "value")
                if isinstance(name := getattr(node, field, None), str) and "\n" not in name
            ]
            wrong += [f"{module.name}: {name}" for name in said if "href" in name or "pulp" in name]
    assert wrong == []


#: Documents of what is counted where it is shown: parts of lists, and how far a task is.
COUNTED = {"PageDocument", "ProgressReport"}


def test_documents_are_read_from_values_and_not_copied_field_by_field() -> None:
    documents = {node.name for module in MODULES for node in module.nodes if _is_document(node)} - COUNTED
    copied = [
        f"{module.name}:{node.lineno} {node.func.id}"
        for module in MODULES
        for node in module.nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.keywords) > 3
        if node.func.id in documents or (node.func.id == "cls" and module.part in ("api", "pulp"))
    ]
    assert len(documents) > 25
    assert copied == []


def _is_document(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    names = ("Document", "DocumentedVersion", "VersionDocument", "BaseModel")
    return isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id in names for base in node.bases
    )


def test_a_dag_imports_only_operators_and_the_sdk() -> None:
    dags = _modules(DAGS)
    wrong = [f"{dag.name}: {name}" for dag in dags for name in dag.imports if not _may_be_in_a_dag(name)]
    assert dags
    assert wrong == []


def _may_be_in_a_dag(name: str) -> bool:
    root = name.split(".", maxsplit=1)[0]
    if root == "registry_sync":
        return name.split(".")[1] == "operators"
    if root == "airflow":
        return name.startswith(("airflow.sdk", "airflow.providers.standard"))
    return root in sys.stdlib_module_names


def test_no_module_has_the_name_of_a_standard_library_module() -> None:
    paths = [module.path for module in MODULES]
    # A folder below a part is never the name of a module that somebody puts on the path: it is reached by its part.
    names = {str(path): path.stem for path in paths}
    assert {path: name for path, name in names.items() if name in sys.stdlib_module_names} == {}


def test_every_module_has_a_docstring_that_says_its_rule() -> None:
    assert [module.name for module in MODULES if not ast.get_docstring(module.tree)] == []


def test_no_module_is_longer_than_600_lines() -> None:
    lengths = {module.name: len(module.text.splitlines()) for module in MODULES}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_no_function_is_longer_than_80_lines() -> None:
    long = []
    for module in MODULES:
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > 80 and "migrations" not in module.path.parts:
                    long.append(f"{module.name}:{node.name} {length}")
    assert long == []


#: Besides these only operators, which bear the name of the stage that they run.
MAY_RECUR = {"__init__"}


def test_no_two_modules_and_no_two_public_classes_have_one_name() -> None:
    modules = Counter(
        module.path.stem for module in MODULES if module.part != "operators" and "migrations" not in module.path.parts
    )
    classes = Counter(
        node.name
        for module in MODULES
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    )
    assert {name for name, count in modules.items() if count > 1} - MAY_RECUR == set()
    assert {name for name, count in classes.items() if count > 1} == set()


#: Words that the field has others for: a reader of registries and Airflow would stop at them.
UNUSUAL_WORDS = frozenset(
    {
        "told",
        "tell",
        "tells",
        "asked",
        "answer",
        "answers",
        "occasion",
        "stray",
        "strays",
        "stranger",
        "strangers",
        "companion",
        "companions",
        "moment",
        "begun",
        "anew",
        "handed",
        "unneeded",
        "noted",
        "unnoted",
    }
)
#: A column of a table keeps its name.
COLUMNS = frozenset({"asked_at"})


def test_functions_classes_and_parameters_are_named_in_the_words_of_the_field() -> None:
    """``report``, ``request``, ``response``, ``timestamp``, ``referrer_tags``, ``recorded`` are."""
    unusual = {
        f"{module.name}: {name}"
        for module in MODULES
        if "migrations" not in module.path.parts
        for name in _names(module.nodes)
        if name not in COLUMNS and UNUSUAL_WORDS.intersection(re.findall(r"[A-Z]?[a-z]+", name.lower()))
    }
    assert unusual == set()


def _names(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
