"""The reference that is generated from the code: operators and hooks by their docstrings, commands by their arguments,
REST by its OpenAPI document.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

FOLDER = "reference/generated"
#: The text of an empty cell.
_NOTHING = ""


@dataclass(frozen=True)
class GeneratedPage:
    """A page of the site; ``place`` is its path there."""

    place: str
    render: Callable[[], str]


# -- operators, hooks, errors -------------------------------------------------------------------------------------


def operators() -> str:
    """A page with every operator: its docstring, signature, template fields and what ``execute`` returns."""
    from registry_sync.operators.stage import RegistryRetryPolicy
    from registry_sync.operators.sync_repository import sync_repository
    from registry_sync.provider import OPERATOR_MODULES

    lines = [
        "# Operators, from the code",
        "",
        "What stands here is what the docstrings say. [Operators](../operators.md)",
    ]
    lines += ["says how they work together.", ""]
    lines += [f"## {sync_repository.__name__}", "", f"`from {sync_repository.__module__} import sync_repository`", ""]
    lines += _directive("autofunction", f"{sync_repository.__module__}.{sync_repository.__name__}")
    for module in (*OPERATOR_MODULES, RegistryRetryPolicy.__module__):
        for kind, member in public_classes(module):
            lines += [f"## {kind.__name__}", "", f"`from {module} import {kind.__name__}`", ""]
            lines += _directive("autoclass", f"{module}.{kind.__name__}", f":members: {member}", ":show-inheritance:")
            fields = getattr(kind, "template_fields", ())
            if fields:
                lines += [f"Template fields: {', '.join(f'`{name}`' for name in fields)}.", ""]
    return "\n".join(lines)


def public_classes(module: str) -> list[tuple[type, str]]:
    """The operators and retry policies that a module defines, and the method of each that Airflow calls."""
    from airflow.sdk import BaseOperator, RetryPolicy

    found = []
    for _, kind in inspect.getmembers(import_module(module), inspect.isclass):
        if kind.__module__ == module and issubclass(kind, BaseOperator | RetryPolicy):
            found.append((kind, "execute" if issubclass(kind, BaseOperator) else "evaluate"))
    return found


def hooks() -> str:
    """A page with the hook, and one line on where its connection is described."""
    lines = ["# Hooks, from the code", "", "The fields of its connection: [connection](../connection.md).", ""]
    lines += _directive("autoclass", "registry_sync.hooks.registry.RegistryHook", ":members:", ":show-inheritance:")
    return "\n".join(lines)


def errors() -> str:
    """A page with the error tree."""
    lines = ["# Errors, from the code", "", "What each means for a sync, and what to do: [errors](../errors.md).", ""]
    lines += _directive("automodule", "registry_sync.errors", ":members:", ":show-inheritance:")
    return "\n".join(lines)


def _directive(name: str, argument: str, *options: str) -> list[str]:
    """A directive of Sphinx, whose docstrings are in its own markup and not in Markdown."""
    return ["```{eval-rst}", f".. {name}:: {argument}", *(f"   {option}" for option in options), "```", ""]


# -- commands -----------------------------------------------------------------------------------------------------


def commands() -> str:
    """A page with every command below ``airflow registry-sync``: what it does, and its arguments."""
    from registry_sync.cli import get_cli_commands

    lines = [
        "# Commands, from the code",
        "",
        "As `--help` says it. [Commands](../cli.md) has examples and what they mean.",
        "",
    ]
    for name, command in walk_commands(get_cli_commands()):
        words = [f"`{_usage(argument)}`" for argument in command.args]
        lines += [f"## {name}", "", f"{_sentence(command.help)}", ""]
        lines += ["```text", " ".join([f"airflow {name}", *(word.strip("`") for word in words)]), "```", ""]
        rows = [
            [", ".join(f"`{flag}`" for flag in argument.flags), _cell(argument.kwargs.get("help")), _choices(argument)]
            for argument in command.args
        ]
        lines += table(["argument", "meaning", "values"], rows)
    return "\n".join(lines)


def walk_commands(entries: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command, by its words after ``airflow``."""
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if hasattr(entry, "subcommands"):
            yield from walk_commands(entry.subcommands, f"{name} ")
        else:
            yield name, entry


def _usage(argument: Any) -> str:
    """An argument in a synopsis: ``NAME``, ``[NUMBER]``, ``[--tag TAG]``."""
    flag, given = argument.flags[-1], argument.kwargs
    is_option = flag.startswith("-")
    takes_value = given.get("action") not in ("store_true", "store_false")
    name = str(given.get("dest") or flag.lstrip("-")).upper().replace("-", "_")
    text = f"{flag} {name}" if is_option and takes_value else flag if is_option else name
    many = " …" if given.get("nargs") in ("*", "+") else ""
    is_optional = not given.get("required") if is_option else given.get("nargs") in ("?", "*")
    return f"[{text}]{many}" if is_optional else f"{text}{many}"


def _choices(argument: Any) -> str:
    choices = argument.kwargs.get("choices")
    return ", ".join(f"`{choice}`" for choice in choices) if choices else _NOTHING


# -- REST ---------------------------------------------------------------------------------------------------------


def rest_api() -> str:
    """A page with every operation of the REST API, and every document in its requests and responses."""
    from registry_sync.api.app import MOUNT, create_app

    document = create_app().openapi()
    lines = [
        "# REST API, from the code",
        "",
        "The same as the OpenAPI document that the API serves. [REST API](../rest-api.md)",
    ]
    lines += ["says what it means, who may do what, and what goes wrong.", ""]
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).extend(_operation(method.upper(), MOUNT + path, operation))
    for tag, found in by_tag.items():
        lines += [f"## {tag.capitalize()}", "", *found]
    lines += ["## Documents", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _document(name, schema)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> list[str]:
    lines = [f"### {operation['summary']}", "", "```text", f"{method} {path}", "```", ""]
    lines += [_cell(operation.get("description")), ""]
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        lines += [f"Takes {' or '.join(schema_text(content['schema']) for content in body.values())}.", ""]
    rows = [
        [f"`{given['name']}`", given["in"], schema_text(given["schema"]), _cell(given.get("description"))]
        for given in operation.get("parameters", ())
    ]
    lines += table(["parameter", "in", "type", "meaning"], rows)
    rows = []
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        rows.append([status, _cell(response["description"]), " or ".join(map(_content, content.items()))])
    return [*lines, *table(["status", "when", "document"], rows)]


def _content(entry: tuple[str, Mapping[str, Any]]) -> str:
    kind, content = entry
    return schema_text(content["schema"]) if content.get("schema") else f"`{kind}`"


def _document(name: str, schema: Mapping[str, Any]) -> list[str]:
    lines = [f"### {_shown(name)}", "", _cell(schema.get("description")), ""]
    if "enum" in schema:
        return [*lines, f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.", ""]
    required = schema.get("required", ())
    rows = [
        [f"`{field}`" + (" *" if field in required else ""), schema_text(kind), _field_meaning(kind)]
        for field, kind in schema.get("properties", {}).items()
    ]
    if any(field in required for field in schema.get("properties", ())):
        lines += ["Fields with `*` are always there.", ""]
    return [*lines, *table(["field", "type", "meaning"], rows)]


def _shown(name: str) -> str:
    """A document's readable name: ``PageDocument of TagDocument``."""
    return name.strip("_").replace("_", " of ")


def _field_meaning(schema: Mapping[str, Any]) -> str:
    parts = [_cell(schema.get("description"))]
    if schema.get("default") is not None:
        parts.append(f"Default `{schema['default']}`.")
    return " ".join(part for part in parts if part)


def schema_text(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, such as ``text, at most 255 characters, or null``; documents are linked."""
    if "$ref" in schema:
        name = _shown(schema["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.lower().replace(' ', '-')})"
    several = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if several:
        return " or ".join(dict.fromkeys(schema_text(one) for one in several))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {schema_text(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {schema_text(schema['additionalProperties'])}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    text = schema.get("format") or words.get(kind, kind)
    limits = [f"at most {schema['maxLength']:,} characters"] if "maxLength" in schema else []
    limits += [f"from {schema['minimum']}"] if "minimum" in schema else []
    limits += [f"to {schema['maximum']}"] if "maximum" in schema else []
    return ", ".join([text, " ".join(limits)]) if limits else str(text)


# -- Markdown -----------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table without its empty columns; nothing without rows."""
    if not rows:
        return []
    kept = [number for number in range(len(header)) if number == 0 or any(row[number] for row in rows)]
    lines = [
        [header[number] for number in kept],
        ["---"] * len(kept),
        *([row[number] for number in kept] for row in rows),
    ]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _cell(text: str | None) -> str:
    """A text as Markdown in one line, also if it has Sphinx's markup."""
    return " ".join((text or "").replace("|", "\\|").replace("``", "`").split())


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."


PAGES = (
    GeneratedPage(f"{FOLDER}/operators.md", operators),
    GeneratedPage(f"{FOLDER}/hooks.md", hooks),
    GeneratedPage(f"{FOLDER}/errors.md", errors),
    GeneratedPage(f"{FOLDER}/commands.md", commands),
    GeneratedPage(f"{FOLDER}/rest-api.md", rest_api),
)
