"""The documentation as a site: what Sphinx is given, without Sphinx. ``make docs`` builds it; warnings fail it."""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from documentation import reference
from documentation.pages import CHECKOUT, page_places, rewrite_links, sections, stage
from registry_sync.api.app import MOUNT
from registry_sync.cli import get_cli_commands
from registry_sync.hooks.registry import RegistryHook
from registry_sync.provider import OPERATOR_MODULES
from support.rest_api import description

SOURCE_URL = "https://code.example/registry-sync/blob/main"
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as Sphinx reads them."""
    folder = tmp_path_factory.mktemp("site")
    stage(folder)
    return folder


def links(path: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8")))


def generated(site: Path, name: str) -> str:
    return (site / reference.FOLDER / f"{name}.md").read_text(encoding="utf-8")


@cache
def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation_once(site: Path) -> None:
    listed = [place for _, places in sections() for place in places]
    decisions = [f"adr/{path.name}" for path in (site / "adr").glob("0*.md")]
    toctree = (site / "adr" / "index.md").read_text(encoding="utf-8").rpartition("```{toctree}")[2]
    assert [place for place in decisions if place.removeprefix("adr/").removesuffix(".md") not in toctree] == []
    assert len(listed) == len(set(listed))
    staged = {path.relative_to(site).as_posix() for path in site.rglob("*.md")}
    assert staged == {*listed, *decisions, "index.md"}


def test_the_front_page_is_the_readme_and_then_all_pages(site: Path) -> None:
    text = (site / "index.md").read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    assert titles[:3] == ["registry-sync", "The smallest DAG", "Tutorials"]
    assert "make docs" not in text


def test_every_link_leads_to_a_page_of_the_site_or_to_an_address(site: Path) -> None:
    for page in site.rglob("*.md"):
        for target in links(page):
            name, _, anchor = target.partition("#")
            if "://" in target:
                continue
            found = (page.parent / name).resolve() if name else page
            assert found.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(found), f"{page.name} links to {target}"


def test_files_that_are_no_pages_are_named_or_linked_where_they_can_be_read() -> None:
    places = page_places()
    text = "[`oci/`](../../plugins/registry_sync/oci), [why](../adr/0034-documentation-site.md#decision), "
    text += "[all](../README.md)\n"
    text += "```text\n[kept](../../plugins)\n```\n![form](../images/run.png) [web](https://example.org)\n"
    page = "docs/explanation/architecture.md"
    assert rewrite_links(text, page, places, None) == text.replace(
        "[`oci/`](../../plugins/registry_sync/oci)", "`oci/`"
    ).replace("../README.md", "../index.md")
    linked = rewrite_links(text, page, places, SOURCE_URL)
    assert linked.startswith(f"[`oci/`]({SOURCE_URL}/plugins/registry_sync/oci), ")
    assert "[kept](../../plugins)" in linked
    assert rewrite_links("[x](docs/how-to/registries.md)", "README.md", places, None) == "[x](how-to/registries.md)"


@pytest.mark.parametrize("module", OPERATOR_MODULES)
def test_every_operator_is_generated_with_each_of_its_parameters_said(site: Path, module: str) -> None:
    page = generated(site, "operators")
    operators = list(reference.public_classes(module))
    assert operators
    for kind, member in operators:
        assert f".. autoclass:: {module}.{kind.__name__}\n   :members: {member}\n" in page
        for name in kind.template_fields:
            assert f"`{name}`" in page
        said = {name for one in kind.__mro__ for name in re.findall(r":param (\w+):", one.__doc__ or "")}
        assert {name for name in inspect.signature(kind).parameters if name != "kwargs"} <= said


def test_the_hook_and_the_errors_are_generated(site: Path) -> None:
    assert f"autoclass:: {RegistryHook.__module__}.{RegistryHook.__name__}" in generated(site, "hooks")
    module = re.search(r"automodule:: (\S+)", generated(site, "errors"))
    assert module is not None
    assert import_module(module[1]).RegistrySyncError


def test_every_command_is_generated_with_each_of_its_arguments(site: Path) -> None:
    page = generated(site, "commands")
    for name, command in reference.walk_commands(get_cli_commands()):
        found = re.search(rf"^## {re.escape(name)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert found is not None, name
        assert f"airflow {name}" in found[1]
        for argument in command.args:
            assert all(f"`{flag}`" in found[1] for flag in argument.flags)
    assert "airflow registry-sync version show NAME [NUMBER] [--output OUTPUT]" in page
    assert "airflow registry-sync run approve RUN_ID [--dag-id DAG_ID] [--task TASK] [--yes]" in page


def test_every_operation_and_document_of_the_rest_api_is_generated(site: Path) -> None:
    page, document = generated(site, "rest-api"), description()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"### {operation['summary']}\n\n```text\n{method.upper()} {MOUNT}{path}\n```" in page
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}):
            assert f"| `{field}`" in page


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (
            {"$ref": "#/components/schemas/PageDocument_TagDocument_"},
            "[PageDocument of TagDocument](#pagedocument-of-tagdocument)",
        ),
        (
            {"anyOf": [{"type": "string", "maxLength": 2000}, {"type": "null"}]},
            "text, at most 2,000 characters or null",
        ),
        (
            {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}},
            "list of whole number, from 1 to 9",
        ),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, "object of true or false"),
        ({"enum": ["a", "b"], "type": "string"}, "`a`, `b`"),
        ({"type": "string", "format": "date-time"}, "date-time"),
        ({}, "anything"),
    ],
)
def test_a_schema_is_said_in_a_few_words(schema: dict[str, object], text: str) -> None:
    assert reference.schema_text(schema) == text


def test_a_table_has_no_column_that_says_nothing() -> None:
    assert reference.table(["a", "b"], [["1", ""], ["2", ""]]) == ["| a |", "| --- |", "| 1 |", "| 2 |", ""]
    assert reference.table(["a"], []) == []


def test_the_site_takes_nothing_from_the_network() -> None:
    own = [*(CHECKOUT / "tools" / "documentation" / "static").iterdir(), CHECKOUT / "tools/documentation/conf.py"]
    assert [path.name for path in own if "://" in path.read_text(encoding="utf-8")] == []
