"""The OpenAPI document, held against what is answered, and its page for people."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from support.rest_api import API, ApiServer, RestClient

#: That every answer is one that the document describes, that nothing breaks, and that nothing is open.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
#: Ids in paths that lead to something.
CONFIGURATION = """
[parameters]
"path.repository_id" = "{repository}"
"path.remote_id" = "{remote}"
"path.task_id" = "{task}"
"path.unit_id" = 1
"path.number" = 1

# What the same code reads at several paths has its bounds tried at one of them: of both forms, that of `docker`, and of
# lists of one kind and of all kinds, those of one.
[[operations]]
include-path-regex = "/container/container/|/content/container/|/v3/(repositories|remotes|distributions)/$"
phases.coverage.enabled = false

# So have bodies of the same fields.
[[operations]]
include-name-regex = "^(PUT|PATCH) .*/(remotes|distributions)/docker/docker/[^/]+/$"
phases.coverage.enabled = false
"""


def with_each_parameter_once(document: dict[str, Any]) -> dict[str, Any]:
    """The document with each parameter of queries, that of one name and schema, at the first path that has it.

    The same code reads it wherever it stands. Of the two forms that of ``docker`` comes first.
    """
    known = set[str]()
    for path in sorted(document["paths"], key=lambda path: "docker/" not in path):
        for operation in document["paths"][path].values():
            if "parameters" in operation:
                new = [one for one in operation["parameters"] if one["in"] != "query" or _parameter(one) not in known]
                operation["parameters"] = new
                known |= {_parameter(one) for one in new}
    return document


def _parameter(described: dict[str, Any]) -> str:
    return json.dumps([described["name"], described["schema"]])


def run_schemathesis(api_server: ApiServer, document: Path, *options: str) -> None:
    """Tries the API as its document describes it; every answer that it does not describe is a failure.

    What is tried is the same each time, however long it takes; ``schemathesis.toml`` beside the document configures it.
    """
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run", document.name, f"--url={api_server.url}/pulp",
        f"--header=Authorization: Bearer {api_server.tokens['admin']}", f"--checks={','.join(CHECKS)}",
        "--seed=1", "--generation-deterministic", "--no-color", "--warnings=off", "--request-timeout=60", *options,
    ]  # fmt: skip
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        command, cwd=document.parent, env={**os.environ, **direct}, capture_output=True, text=True, check=False
    )
    print(done.stdout[-1500:])
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]


@pytest.fixture
def document(admin: RestClient, tmp_path: Path) -> Path:
    path = tmp_path / "api.json"
    path.write_text(json.dumps(with_each_parameter_once(admin.get("docs/api.json", pk_path=1))))
    return path


@pytest.mark.parametrize("methods", [("GET",), ("POST", "PUT", "PATCH")], ids=["reads", "writes"])
def test_schemathesis_finds_no_undocumented_response(
    api_server: ApiServer, synced: dict[str, str], document: Path, methods: tuple[str, ...]
) -> None:
    """Every bound of every parameter and body, for each operation but those that remove; then any of both.

    What the same code reads at several paths has its bounds tried at one.
    """
    ids = {kind: href.split("/")[-2] for kind, href in synced.items() if kind != "name"}
    document.with_name("schemathesis.toml").write_text(CONFIGURATION.format(**ids))
    included = [f"--include-method={method}" for method in methods]
    run_schemathesis(api_server, document, "--phases=coverage,fuzzing", "--max-examples=1", *included)


def test_schemathesis_finds_no_undocumented_response_to_removals_of_what_is_missing(
    api_server: ApiServer, document: Path
) -> None:
    run_schemathesis(api_server, document, "--phases=coverage,fuzzing", "--max-examples=1", "--include-method=DELETE")


def test_the_document_describes_every_operation_and_no_other_status(admin: RestClient) -> None:
    document = admin.get("docs/api.json", pk_path=1)
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "/pulp"}]
    operations = {
        f"{method.upper()} /pulp{path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert len(operations) > 80
    for name, operation in operations.items():
        assert name.split()[1].startswith(f"{API}/"), name
        is_for_everybody = name.endswith("/docs/api.json") or "/webhooks/" in name
        assert bool(operation.get("security")) is not is_for_everybody, name
        assert {"400", "401", "403", "503"} <= operation["responses"].keys(), name
        assert "422" not in operation["responses"], name
        assert operation["description"].endswith((".", ".")), name
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)


class _Page(HTMLParser):
    """What a browser would load, and where links go."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "link", "iframe"):
            self.loads.append(tag)
        if tag == "a":
            self.links.append(values["href"] or "")
        self.ids |= {values["id"] or ""} if "id" in values else set()


def test_people_read_the_document_as_a_page_that_loads_the_theme_alone(api_server: ApiServer) -> None:
    viewer = api_server.client("viewer")
    response = viewer.ask("GET", "docs/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    page = _Page(response.text)
    assert page.loads == ["script"]
    (script,) = re.findall(r"<script src='([^']+)' defer></script>", response.text)
    assert "dataset.theme" in viewer.ask("GET", script).text, "the theme of Airflow around it"
    assert ':root[data-theme="dark"]' in response.text
    for link in page.links:
        if link.startswith("#"):
            assert link.removeprefix("#") in page.ids
        else:
            assert viewer.ask("GET", link).status_code == 200, link
    for path in viewer.get("docs/api.json", pk_path=1)["paths"]:
        assert f"/pulp{path}" in re.sub(r"<[^>]+>", "", response.text)


def test_the_page_is_for_people_who_are_signed_in_and_the_document_for_everybody(api_server: ApiServer) -> None:
    nobody = api_server.client(None)
    assert nobody.ask("GET", "docs/").status_code == 401
    # Pulp's clients read it before they log in.
    assert nobody.ask("GET", "docs/api.json").status_code == 200
    assert nobody.ask("GET", "docs/api.json?pk_path=0").json().keys() == {"pk_path"}
    assert nobody.ask("GET", "docs/api.json", headers={"Origin": "https://elsewhere.example"}).status_code == 403
