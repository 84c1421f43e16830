"""The OpenAPI document for Pulp's clients: ids of operations, paths by href, releases, and HTTP Basic."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest

from registry_sync.api.description import PULP_VERSIONS, in_pulps_form
from support.rest_api import description

#: Operations of Pulp, by its ids, with their method and their path as its clients know it.
OPERATIONS = {
    "repositories_container_container_list": "get /pulp/api/v3/repositories/container/container/",
    "repositories_container_container_create": "post /pulp/api/v3/repositories/container/container/",
    "repositories_container_container_read": "get {container_container_repository_href}",
    "repositories_container_container_update": "put {container_container_repository_href}",
    "repositories_container_container_partial_update": "patch {container_container_repository_href}",
    "repositories_container_container_delete": "delete {container_container_repository_href}",
    "repositories_container_container_sync": "post {container_container_repository_href}sync/",
    "repositories_container_container_versions_list": "get {container_container_repository_href}versions/",
    "repositories_container_container_versions_read": "get {container_container_repository_version_href}",
    "remotes_container_container_create": "post /pulp/api/v3/remotes/container/container/",
    "remotes_container_container_partial_update": "patch {container_container_remote_href}",
    "distributions_container_container_read": "get {container_container_distribution_href}",
    "content_container_blobs_read": "get {container_blob_href}",
    "content_container_manifests_list": "get /pulp/api/v3/content/container/manifests/",
    "content_container_tags_read": "get {container_tag_href}",
    "repositories_docker_docker_versions_read": "get {docker_docker_repository_version_href}",
    "content_docker_tags_list": "get /pulp/api/v3/content/docker/tags/",
    "tasks_list": "get /pulp/api/v3/tasks/",
    "tasks_read": "get {task_href}",
    "tasks_cancel": "patch {task_href}",
    "status_read": "get /pulp/api/v3/status/",
}


@cache
def _by_href() -> dict[str, Any]:
    """The description in Pulp's form; nobody changes it."""
    return in_pulps_form(description())


def _operations(document: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        operation["operationId"]: (f"{method} {path}", operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_an_operation_has_pulps_id_and_path(operation_id: str) -> None:
    assert _operations(_by_href())[operation_id][0] == OPERATIONS[operation_id]


def test_both_forms_have_the_same_operations() -> None:
    assert _operations(_by_href()).keys() == _operations(description()).keys()
    assert len(_operations(description())) == sum(len(operations) for operations in description()["paths"].values())


def test_a_path_by_href_has_one_parameter_and_that_is_described() -> None:
    for shown, operation in _operations(_by_href()).values():
        named = re.findall(r"\{(\w+)\}", shown)
        found = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"]
        assert found == named
        assert len(named) <= 1


def test_the_form_by_ids_is_not_changed_by_the_other_one() -> None:
    before = json.dumps(description(), sort_keys=True)
    in_pulps_form(description())
    assert json.dumps(description(), sort_keys=True) == before


def test_clients_find_what_they_look_for() -> None:
    assert _by_href()["info"]["x-pulp-app-versions"].items() >= PULP_VERSIONS.items()
    assert _by_href()["components"]["securitySchemes"]["basicAuth"] == {"type": "http", "scheme": "basic"}
    assert {"basicAuth": []} in _operations(_by_href())["tasks_read"][1]["security"]
    assert "security" not in _operations(_by_href())["docs_api_json_read"][1]


def test_every_schema_that_is_named_is_there() -> None:
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(_by_href())))
    assert named <= _by_href()["components"]["schemas"].keys()
    version = _by_href()["components"]["schemas"]["ContainerVersionDocument"]["properties"]
    assert {"pulp_href", "number", "repository", "base_version", "content_summary"} <= version.keys()
