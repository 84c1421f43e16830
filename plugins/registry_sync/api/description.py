"""The OpenAPI document in two forms, and the ids of its operations, which are Pulp's.

Pulp's clients address an object by the path that they read of it, and look operations up by their ids: so the document
has paths such as ``{container_container_repository_href}sync/`` for them, whose parameter is a whole path. For other
programs it has the same operations with paths by ids, such as
``/api/v3/repositories/container/container/{repository_id}/sync/``, which is what OpenAPI means by a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import version
from typing import Any

from fastapi.routing import APIRoute

from registry_sync import __version__
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import API_PREFIX

#: The releases of Pulp's core and of its container plugin whose API this one has, as far as it goes.
PULP_VERSIONS = {"core": "3.73.0", "container": "2.24.0"}
#: HTTP Basic, as Pulp's clients look for it.
BASIC = {"basicAuth": {"type": "http", "scheme": "basic"}}
_ON_AN_ENTRY = {"GET": "read", "PUT": "update", "PATCH": "partial_update", "DELETE": "delete"}
#: Ids that do not follow from the path.
_OTHER_IDS = {
    ("PATCH", "tasks/{}/"): "tasks_cancel",
    ("PATCH", "task-groups/{}/"): "task_groups_cancel",
    ("POST", "orphans/cleanup/"): "orphans_cleanup_cleanup",
    ("POST", "repair/"): "repair_post",
    ("GET", "docs/api.json"): "docs_api_json_read",
}
_SINGULAR = {
    "repositories": "repository",
    "remotes": "remote",
    "distributions": "distribution",
    "versions": "repository_version",
}
_PARAMETER = re.compile(r"\{\w+\}")


def component_versions() -> dict[str, str]:
    """The release of each component, by its name: of Pulp's that clients look for, and of what is installed here."""
    return {**PULP_VERSIONS, "docker": __version__, "airflow": version("apache-airflow-core")}


def operation_id(route: APIRoute) -> str:
    """Pulp's id of an operation: ``repositories_container_container_versions_list``.

    The words of the path, and what is done: ``list`` and ``create``, ``read``, ``update``, ``partial_update`` and
    ``delete``; an action has its own word in the path.
    """
    path, method = _below_prefix(route.path), min(route.methods)
    if (found := _OTHER_IDS.get((method, _PARAMETER.sub("{}", path)))) is not None:
        return found
    parts = path.strip("/").split("/")
    words = [part.replace("-", "_") for part in parts if not part.startswith("{")]
    is_entry, is_below_entry = parts[-1].startswith("{"), any(part.startswith("{") for part in parts)
    if is_entry:
        words.append(_ON_AN_ENTRY.get(method, method.lower()))
    elif _is_page(route.response_model):
        words.append("list")
    elif not is_below_entry and method == "GET":
        words.append("read")
    elif not is_below_entry and parts[0] in _SINGULAR:
        words.append("create")
    return "_".join(words)


def _below_prefix(path: str) -> str:
    return path.removeprefix("/pulp").partition("/api/v3/")[2]


def _is_page(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, PageDocument)


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with what it does not know: invalid input is 400 and not 422, lists have commas, releases."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for parameter in operation.get("parameters", ()):
                _describe_filter(parameter)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, schema in schemas.items():
        if name.endswith("Document"):  # of which ``fields`` sends some
            schema.pop("required", None)
    document["info"]["x-pulp-app-versions"] = component_versions()
    return document


#: Filters by numbers and by times; the others are by texts.
_NUMBERS, _TIMES = (
    {"number", "retain_repo_versions"},
    {"pulp_created", "pulp_last_updated", "started_at", "finished_at"},
)
_COMPARED = {"", "gt", "gte", "lt", "lte"}


def _describe_filter(parameter: dict[str, Any]) -> None:
    """The type of a filter, as Pulp's clients check it: ``…__in`` is a list in one parameter, with commas."""
    name, _, operator = parameter["name"].partition("__")
    if parameter["in"] != "query":
        return
    if operator == "in":
        parameter["schema"] = {"type": "array", "items": {"type": "string"}}
        parameter |= {"style": "form", "explode": False}
    elif operator in _COMPARED and name in _NUMBERS:
        parameter["schema"] = {"type": "integer"}
    elif operator in _COMPARED and name in _TIMES:
        parameter["schema"] = {"type": "string", "format": "date-time"}


def in_pulps_form(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with paths by href, as Pulp's is, and with Basic, by which its clients log in."""
    paths: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        shown, name = _by_href(path)
        paths.setdefault(shown, {}).update(
            {method: _with_href(operation, name) for method, operation in operations.items()}
        )
    components = document["components"]
    schemes = {**components.get("securitySchemes", {}), **BASIC}
    return {**document, "paths": paths, "components": {**components, "securitySchemes": schemes}}


def _by_href(path: str) -> tuple[str, str | None]:
    """A path by href, and the name of its parameter; the whole path and None for one without an id."""
    head, closed, tail = path.rpartition("}/")
    if not closed:
        return f"/pulp{path}", None
    words = [part for part in _below_prefix(f"{head}}}/").strip("/").split("/") if not part.startswith("{")]
    kind = words[-1] if words[-1] == "versions" else words[0]
    if kind in _SINGULAR:
        name = f"{words[1]}_{words[2]}_{_SINGULAR['repositories']}_version" if kind == "versions" else ""
        name = name or f"{words[1]}_{words[2]}_{_SINGULAR[kind]}"
    elif words[0] == "content":
        name = f"{words[1]}_{words[2].removesuffix('s')}"
    else:
        name = words[0].replace("-", "_").removesuffix("s")
    return f"{{{name}_href}}{tail}", f"{name}_href"


def _with_href(operation: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    changed = deepcopy(dict(operation))
    if changed.get("security"):
        changed["security"] += [{scheme: []} for scheme in BASIC]
    if name is not None:
        others = [parameter for parameter in changed.get("parameters", ()) if parameter["in"] != "path"]
        href = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        changed["parameters"] = [{**href, "description": f"The path of the object, below {API_PREFIX}/"}, *others]
    return changed
