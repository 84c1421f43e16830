"""Pulp's ``pulp`` command, unmodified, against the API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pulp_clients import PulpCommand, pulp_command, python_of
from support.rest_api import ApiServer, RestClient

CONTAINER = "/pulp/api/v3/repositories/container/container/"


def _password(role: str) -> str:
    passwords = json.loads(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    return str(passwords[role])


@pytest.fixture(scope="module")
def pulp(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulpCommand]:
    home = tmp_path_factory.mktemp("pulp")
    with pulp_command(api_server.url, "admin", _password("admin"), home) as command:
        yield command


def test_the_program_says_what_runs(api_server: ApiServer, tmp_path: Path) -> None:
    program = python_of("today").with_name("pulp")
    words = ["--base-url", api_server.url, "--username", "viewer", "--password", _password("viewer"), "status"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "no_proxy": "127.0.0.1"}
    done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["database_connection"]["connected"] is True
    # The releases of the status are those of the description, which the program keeps.
    assert done.stderr == ""


def test_a_wrong_password_is_said(api_server: ApiServer, tmp_path: Path) -> None:
    with pulp_command(api_server.url, "admin", "wrong", tmp_path) as command:
        assert "Authentication failed" in command("status", status=1).errors


def test_a_remote_is_made_changed_shown_and_destroyed(pulp: PulpCommand, name: str) -> None:
    words = ("--url", "https://registry.example", "--upstream-name", "library/app", "--include-tags", '["v*"]')
    made = pulp(f"container remote create --name {name} --policy on_demand --tls-validation false", *words).document
    assert (made["include_tags"], made["policy"], made["tls_validation"]) == (["v*"], "on_demand", False)
    pulp(f"container remote update --name {name}", "--exclude-tags", '["*-rc"]', "--username", "ana", "--password", "x")
    shown = pulp(f"container remote show --name {name}").document
    assert (shown["exclude_tags"], shown["include_tags"]) == (["*-rc"], ["v*"])
    pulp(f"container remote update --name {name} --include-tags", "")
    assert pulp(f"container remote show --name {name}").document["include_tags"] is None
    refused = pulp(f"container remote update --name {name} --rate-limit 4", status=1)
    assert "requests_per_second" in refused.errors
    pulp(f"container remote destroy --name {name}")
    assert "Could not find" in pulp(f"container remote show --name {name}", status=1).errors


def test_a_repository_is_made_changed_shown_and_destroyed(pulp: PulpCommand, name: str) -> None:
    pulp(f"container remote create --name {name} --url https://registry.example --upstream-name library/app")
    made = pulp(f"container repository create --name {name} --remote {name} --labels", '{"team": "web"}').document
    assert made["pulp_href"].startswith(CONTAINER)
    pulp(f"container repository update --name {name} --retain-repo-versions 3", "--description", "of the web team")
    shown = pulp(f"container repository show --href {made['pulp_href']}").document
    assert (shown["retain_repo_versions"], shown["pulp_labels"]) == (3, {"team": "web"})
    assert shown["remote"].startswith("/pulp/api/v3/remotes/container/container/")
    pulp(f"container repository update --name {name} --remote", "")
    assert pulp(f"container repository show --name {name}").document["remote"] is None
    assert "does not have a default remote" in pulp(f"container repository sync --name {name}", status=1).errors
    pulp(f"container repository destroy --name {name}")
    assert "Could not find" in pulp(f"container repository show --name {name}", status=1).errors


def test_a_sync_is_a_task_that_is_shown_and_canceled(pulp: PulpCommand, name: str) -> None:
    pulp(f"container remote create --name {name} --url https://registry.example --upstream-name library/app")
    pulp(f"container repository create --name {name} --remote {name}")
    started = pulp(f"--background container repository sync --name {name}")
    href = next(word for word in started.errors.split() if word.startswith("/pulp/api/v3/tasks/"))
    assert pulp(f"task show --href {href}").document["state"] == "waiting"
    pulp(f"task cancel --href {href}")
    assert pulp(f"task show --href {href}").document["state"] == "canceled"


def test_content_is_listed_and_shown(pulp: PulpCommand, synced: dict[str, str]) -> None:
    listed = pulp(f"container repository content list --repository {synced['name']}").document
    assert [tag["name"] for tag in listed] == ["index"]
    tag = pulp(f"container content --type tag show --href {listed[0]['pulp_href']}").document
    manifest = pulp(f"container content --type manifest show --href {tag['tagged_manifest']}").document
    assert (manifest["schema_version"], manifest["listed_manifests"]) == (2, [])
    blob = pulp(f"container content --type blob show --digest {_digest(pulp, manifest['config_blob'])}").document
    assert blob["pulp_href"] == manifest["config_blob"]


def _digest(pulp: PulpCommand, href: str) -> str:
    return str(pulp(f"container content --type blob show --href {href}").document["digest"])


def test_lists_are_searched(pulp: PulpCommand, synced: dict[str, str], name: str) -> None:
    pulp(f"container repository create --name {name} --labels", '{"team": "web"}')
    listed = pulp("container repository list --label-select team=web --ordering -name --limit 1000").document
    assert name in {repository["name"] for repository in listed}
    assert synced["name"] not in {repository["name"] for repository in listed}
    assert pulp(f"container remote list --name {synced['name']} --field name --field url").document == [
        {"name": synced["name"], "url": "https://registry.example"}
    ]
    assert pulp(f"container distribution list --name-in {name}").document == []


def test_versions_and_their_content_are_listed_and_shown(pulp: PulpCommand, synced: dict[str, str]) -> None:
    versions = pulp(f"container repository version list --repository {synced['name']}").document
    assert [version["number"] for version in versions] == [2, 1]
    first = pulp(f"container repository version show --repository {synced['name']} --version 1").document
    assert first["pulp_href"] == versions[1]["pulp_href"]
    assert first["content_summary"]["present"]["container.tag"]["count"] == 1
    tags = pulp(f"container content --type tag list --name index --repository-version {first['pulp_href']}").document
    (manifest,) = pulp(f"container content --type manifest list --digest {tags[0]['digest']}").document
    assert manifest["pulp_href"] == tags[0]["tagged_manifest"]
    shown = pulp(f"container content --type tag show --name index --digest {tags[0]['digest']}").document
    assert shown == tags[0]
    blobs = f"container content --type blob list --repository-version {first['pulp_href']} --limit 100"
    assert len(pulp(blobs).document) == first["content_summary"]["present"]["container.blob"]["count"]


def test_a_distribution_is_made_changed_and_destroyed(pulp: PulpCommand, synced: dict[str, str], name: str) -> None:
    made = f"--name {name} --base-path team/{name} --repository {synced['name']} --public"
    distribution = pulp(f"container distribution create {made}").document
    assert (distribution["private"], distribution["base_path"]) == (False, f"team/{name}")
    pulp(f"container distribution update --name {name} --version 1")
    shown = pulp(f"container distribution show --name {name}").document
    assert (shown["repository"], shown["repository_version"][-12:]) == (None, "/versions/1/")
    pulp(f"container distribution update --name {name} --repository {synced['name']}")
    assert pulp(f"container distribution show --name {name}").document["repository_version"] is None
    pulp(f"container distribution destroy --name {name}")
    assert "Could not find" in pulp(f"container distribution show --name {name}", status=1).errors


def test_what_the_command_made_is_at_the_documented_paths(pulp: PulpCommand, admin: RestClient, name: str) -> None:
    made = pulp(f"container repository create --name {name}").document
    documented = admin.get("repositories/docker/docker/", name=name)["results"]
    assert [found["pulp_href"] for found in documented] == [made["pulp_href"].replace("container", "docker")]
