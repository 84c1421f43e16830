"""The client libraries that are generated from Pulp's API, unmodified, against the API: those of today and of 2019."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.pulp_clients import walk_with_libraries
from support.rest_api import ApiServer, RestClient


@pytest.mark.parametrize(("generation", "form"), [("today", "container"), ("then", "container"), ("then", "docker")])
def test_the_libraries_walk_the_workflow(
    api_server: ApiServer, admin: RestClient, synced: dict[str, str], generation: str, form: str, tmp_path: Path
) -> None:
    passwords = json.loads(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    found = walk_with_libraries(generation, tmp_path, api_server.url, "admin", passwords["admin"], form, synced["name"])
    version = admin.get(f"{synced['repository']}versions/2/".replace("docker", form))
    present = version["content_summary"]["present"]
    assert found["present"] == {kind: units["count"] for kind, units in present.items()}
    assert {kind.partition(".")[0] for kind in present} == {form}
    assert (found["number"], found["versions"], found["tags"]) == (2, 2 if generation == "today" else None, ["index"])
    assert found["blobs"] == present[f"{form}.blob"]["count"]
    assert (found["connected"], found["remote"]) == (True, "https://registry.example")
    assert {"core", "container"} <= set(found["components"])
    assert all(f"/{form}/" in href for href in found["hrefs"])
    if form == "container":
        assert (found["changed"], found["distributed"], found["left"], found["artifact"]) == (True, True, 0, True)
        assert found["deleted"] == ["completed"] * 3
    else:  # the documented form responds to deletions without a task
        for href in found["hrefs"][:2]:
            assert admin.get(href)["name"].startswith(synced["name"])
            admin.delete(href)
