"""The rules of the registry client (A) and of the pull server (B), held against the tests that show them.

A test shows a rule by its name, ``test_a5_11_…``, by a marker, ``@pytest.mark.rule("A5.11")``, or by one of its module,
``pytestmark = pytest.mark.rule("A5.11")``. The sources are read and nothing is collected.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from registry_sync.db.tables import metadata

TESTS = Path(__file__).parents[1]
PAGES = [TESTS.parent / "docs" / "reference" / name for name in ("registry-rules.md", "pull-server-rules.md")]
_ROW = re.compile(r"^\| ([AB][1-9]\.[1-9][0-9]?) \| (.+) \|$", re.MULTILINE)
_NAME = re.compile(r"test_([ab])([1-9])_([0-9]{2})_.+")


def told() -> dict[str, str]:
    """What the pages say of each rule."""
    found = [row for page in PAGES for row in _ROW.findall(page.read_text(encoding="utf-8"))]
    assert len(found) == len(dict(found)), "a rule is told twice"
    return dict(found)


def rules_of(test: ast.FunctionDef, module: ast.Module) -> Iterator[str]:
    """The rules that one test shows, by its name, its markers and those of its module."""
    if named := _NAME.fullmatch(test.name):
        yield f"{named[1].upper()}{named[2]}.{int(named[3])}"
    assigned = (node for node in module.body if isinstance(node, ast.Assign))
    of_module = (node.value for node in assigned if ast.unparse(node.targets[0]) == "pytestmark")
    for marker in (*test.decorator_list, *of_module):
        if isinstance(marker, ast.Call) and ast.unparse(marker.func) == "pytest.mark.rule":
            yield from (str(ast.literal_eval(argument)) for argument in marker.args)


@cache
def shown() -> dict[str, list[str]]:
    """The tests that show each rule, as ``file::name``."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for rule in rules_of(node, module):
                    found[rule].append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


@pytest.mark.parametrize("rule", told())
def test_a_test_shows_each_rule(rule: str) -> None:
    assert shown().get(rule), f"no test shows {rule}: {told()[rule]}"


def test_no_test_shows_a_rule_that_no_page_has() -> None:
    assert {rule: tests for rule, tests in shown().items() if rule not in told()} == {}


def test_the_rules_are_numbered_without_gaps() -> None:
    numbers: dict[str, list[int]] = defaultdict(list)
    for rule in told():
        part, _, number = rule.partition(".")
        numbers[part].append(int(number))
    assert list(numbers) == [*(f"A{part}" for part in range(1, 10)), "B1", "B2"]
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_a_rule_is_found_in_a_name_in_each_argument_of_a_marker_and_in_the_modules_marker() -> None:
    marked = '@pytest.mark.slow\n@pytest.mark.rule("A1.2", "A3.4")\ndef test_a9_05_x() -> None: ...'
    module = ast.parse(f'pytestmark = pytest.mark.rule("A5.6")\n{marked}')
    test = module.body[-1]
    assert isinstance(test, ast.FunctionDef)
    assert list(rules_of(test, module)) == ["A9.5", "A1.2", "A3.4", "A5.6"]


def test_a8_11_nothing_claims_that_a_signature_was_verified() -> None:
    """Content is copied with its signatures; whether they are good is for who runs it to decide."""
    columns = [f"{table}.{column.name}" for table, found in metadata.tables.items() for column in found.columns]
    assert [name for name in columns if re.search("signature|signed|trust", name)] == []
    readme = " ".join((TESTS.parent / "README.md").read_text(encoding="utf-8").split())
    assert "Signatures are not verified" in readme
