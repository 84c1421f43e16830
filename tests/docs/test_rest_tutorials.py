"""The two tutorials of the documented workflow, run word for word against a real Airflow and a real registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from support.airflow_instance import AirflowInstance
from support.documents import code_blocks
from support.registry import RegistryServer

SHELL = "tutorial/synchronize-rest-shell.md"
PYTHON = "tutorial/synchronize-rest-python.md"
SEPARATOR = "=== next block ==="
DOCKER_HUB = "https://registry-1.docker.io"
#: The version's numbers for the content that both upstreams have.
PRESENT = {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}


@pytest.fixture(scope="module")
def environment(airflow: AirflowInstance) -> dict[str, str]:
    airflow.await_dag()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "BASE_ADDR": airflow.url, "TOKEN": airflow.token(), "NO_PROXY": "127.0.0.1"}


def run(command: list[str], script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, input=script, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def shape(document: Any) -> Any:
    """A document without its ids and times: names and their order, types, and every other value.

    How many blobs are downloaded depends on what other tests have synced before.
    """
    if isinstance(document, dict) and document.get("message") == "Downloading blobs":
        assert document["done"] == document["total"]
        document = {**document, "done": "<new>", "total": "<new>"}
    if isinstance(document, dict):
        return [(key, shape(value)) for key, value in document.items()]
    if isinstance(document, list):
        return [shape(entry) for entry in document]
    if isinstance(document, str):
        text = re.sub(r"(?<![0-9a-f])[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}(?![0-9a-f])", "<uuid>", document)
        return re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", "<moment>", text)
    return document


def test_the_shell_tutorial_gives_the_responses_that_it_shows(
    environment: dict[str, str], upstream: RegistryServer
) -> None:
    """Every JSON block follows the shell block that prints it; only ids and times differ."""
    blocks = code_blocks(SHELL)
    script = ["set -euo pipefail"]
    for block in blocks:
        if block.language == "bash":
            script += [block.text, f"echo '{SEPARATOR}'"]
    printed = run(["bash"], "\n".join(script).replace(DOCKER_HUB, upstream.url), environment).split(SEPARATOR + "\n")
    shown, compared = iter(printed), 0
    output = ""
    for block in blocks:
        if block.language == "bash":
            output = next(shown)
        elif block.language == "json":
            assert shape(json.loads(output)) == shape(json.loads(block.text.replace(DOCKER_HUB, upstream.url)))
            compared += 1
    assert compared == 4
    assert output.split() == sorted(output.split())
    assert len(output.split()) == PRESENT["docker.tag"]


def test_the_python_tutorial_runs_and_prints_what_the_version_holds(
    environment: dict[str, str], upstream: RegistryServer
) -> None:
    script = "\n".join(block.text for block in code_blocks(PYTHON) if block.language == "python")
    printed = run([sys.executable, "-"], script.replace(DOCKER_HUB, upstream.url), environment)
    for content_type, count in PRESENT.items():
        assert f"{count} {content_type}" in printed
    assert re.search(r"^Downloading blobs: (\d+) of \1$", printed, re.MULTILINE)
    assert re.search(r"^latest: sha256:[0-9a-f]{64}, 12 platforms$", printed, re.MULTILINE)
    assert re.search(r"^31 blobs, \d+ bytes$", printed, re.MULTILINE)
