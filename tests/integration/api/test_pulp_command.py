"""Pulp's ``pulp`` command, unmodified, against the API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.models import DagRun
from airflow.utils.session import create_session

from support.pulp_clients import Done, PulpCommand, pulp_command, python_of
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


def test_tasks_are_listed_counted_purged_and_destroyed(pulp: PulpCommand, synced: dict[str, str], name: str) -> None:
    target = pulp(f"container repository create --name {name}").document["pulp_href"]
    task = _task_of(pulp, pulp(f"container repository copy-tag --name {name} --source {synced['name']}"))
    (version,) = task["created_resources"]
    for by in (f"--reserved-resource {target}", f"--exclusive-resource-in {target}", f"--created-resource {version}"):
        assert pulp(f"task list {by}").document == [task]
    assert pulp(f"task list --cid {task['logging_cid'][3:]}").document == [task]
    assert pulp(f"task list --shared-resource {target}").document == []
    assert task in pulp("task list --state completed --name-contains copy --limit 100").document
    # One request for each state that Pulp knows, those that no task has here included.
    assert pulp("task summary").document["completed"] >= 1
    assert pulp(f"container repository task list --repository {name}").document == [task]
    assert pulp(f"task show --uuid {task['pulp_href'].split('/')[-2]}").document == task
    pulp("task purge --finished-before 2000-01-01 --state completed --state skipped")
    pulp(f"task destroy --href {task['pulp_href']}")
    assert pulp(f"task list --reserved-resource {target}").document == []
    pulp("task purge --finished-before 2999-01-01 --state completed")
    assert {found["name"] for found in pulp("task list --state completed").document} == {"registry_sync.purge"}
    assert pulp("task-group list").document == []


def _task_of(pulp: PulpCommand, done: Done) -> Any:
    """The task that a command has started, and waited for unless in the background."""
    return pulp(f"task show --href {next(word for word in done.errors.split() if '/tasks/' in word)}").document


def test_waiting_tasks_are_canceled_together(pulp: PulpCommand, synced: dict[str, str]) -> None:
    with create_session() as session:  # what other tests have left waiting would be canceled one by one
        session.query(DagRun).filter(DagRun.state == "queued").update({"state": "success"})
    started = pulp(f"--background container repository sync --name {synced['name']} --remote {synced['name']}")
    pulp("task cancel --waiting")
    assert _task_of(pulp, started)["state"] == "canceled"
    assert pulp("task list --state-in waiting --state-in running --state-in canceling").document == []


@pytest.mark.parametrize("kind", ["repository", "remote", "distribution"])
def test_labels_are_set_shown_and_unset(pulp: PulpCommand, synced: dict[str, str], name: str, kind: str) -> None:
    if kind == "distribution":
        pulp(f"container distribution create --name {name} --base-path {name} --repository {synced['name']}")
    labeled = f"--{kind} {name if kind == 'distribution' else synced['name']}"
    pulp(f"container {kind} label set {labeled} --key team --value web")
    pulp(f"container {kind} label set {labeled} --key stage --value test")
    assert pulp(f"container {kind} label show {labeled} --key team").output == "web\n"
    pulp(f"container {kind} label unset {labeled} --key team")
    assert "Could not find label" in pulp(f"container {kind} label show {labeled} --key team", status=1).errors
    assert pulp(f"container {kind} label show {labeled} --key stage").output == "test\n"


def test_images_are_tagged_and_untagged(pulp: PulpCommand, synced: dict[str, str], name: str) -> None:
    pulp(f"container repository create --name {name}")
    pulp(f"container repository copy-tag --name {name} --source {synced['name']} --version 1 --tag index")
    listed = f"container repository content list --repository {name}"
    (tag,) = pulp(listed).document
    pulp(f"container repository tag --name {name} --tag stable --digest {tag['digest']}")
    found = {one["name"]: one["digest"] for one in pulp(listed).document}
    assert found == dict.fromkeys(("index", "stable"), tag["digest"])
    pulp(f"container repository untag --name {name} --tag index")
    assert [one["name"] for one in pulp(listed).document] == ["stable"]
    assert "has no tag 'index'" in pulp(f"container repository untag --name {name} --tag index", status=1).errors


def test_manifests_are_copied(pulp: PulpCommand, synced: dict[str, str], name: str) -> None:
    pulp(f"container repository create --name {name}")
    latest = f"{synced['repository'].replace('docker', 'container')}versions/2/"
    (manifest,) = pulp(f"container content --type manifest list --repository-version {latest}").document
    copied = f"--source {synced['name']} --digest {manifest['digest']} --media-type {manifest['media_type']}"
    pulp(f"container repository copy-manifest --name {name} --version 2 {copied}")
    listed = pulp(f"container repository content --type manifest list --repository {name}").document
    assert [found["digest"] for found in listed] == [manifest["digest"]]
    assert pulp(f"container repository content --type tag list --repository {name}").document == []
    refused = pulp(f"container repository copy-manifest --name {name} --version 1 {copied}", status=1)
    assert "has no manifest" in refused.errors


def test_orphans_are_removed_and_versions_repaired_by_tasks(pulp: PulpCommand, synced: dict[str, str]) -> None:
    assert _task_of(pulp, pulp("--background orphan cleanup"))["name"] == "registry_sync.orphan_cleanup"
    assert "orphan_grace_hours" in pulp("orphan cleanup --protection-time 0", status=1).errors
    assert "All orphans are removed" in pulp("orphan cleanup --content-hrefs", '["/x/"]', status=1).errors
    repair = pulp(f"--background container repository version repair --repository {synced['name']} --version 1")
    assert _task_of(pulp, repair)["name"] == "registry_sync.repair"
    pulp("task cancel --all")


def test_a_version_is_found_by_its_content_and_destroyed(pulp: PulpCommand, synced: dict[str, str], name: str) -> None:
    pulp(f"container repository create --name {name}")
    for number in (1, 2):
        pulp(f"container repository copy-tag --name {name} --source {synced['name']} --version {number}")
    (tag,) = pulp(f"container repository content list --repository {name} --version 1").document
    versions = f"container repository version list --repository {name}"
    held = pulp(f"{versions} --content", json.dumps([tag["pulp_href"]])).document
    assert [version["number"] for version in held] == [1]
    pulp(f"container repository version destroy --repository {name} --version 1")
    assert [version["number"] for version in pulp(versions).document] == [2]


def test_artifacts_are_listed_and_shown(pulp: PulpCommand, synced: dict[str, str]) -> None:
    latest = f"{synced['repository'].replace('docker', 'container')}versions/2/"
    for kind in ("blob", "manifest"):
        unit = pulp(f"container content --type {kind} list --repository-version {latest} --limit 1").document[0]
        shown = pulp(f"artifact show --href {unit['artifact']}").document
        assert (shown["size"], f"sha256:{shown['sha256']}") == (unit["size"], unit["digest"])
        assert pulp(f"artifact list --sha256 {shown['sha256']}").document == [shown]
        assert pulp(f"artifact show --sha256 {shown['sha256']}").document == shown
    assert pulp("artifact list --md5 0").document == []
    first = pulp("artifact list --limit 8").document
    pages = [pulp(f"artifact list --limit 3 --offset {offset}").document for offset in (0, 3, 6)]
    assert [artifact for page in pages for artifact in page][: len(first)] == first


def test_the_lists_of_all_types(pulp: PulpCommand, synced: dict[str, str]) -> None:
    for kind in ("repository", "remote"):
        (found,) = pulp(f"{kind} list --name {synced['name']}").document
        assert found == pulp(f"container {kind} show --name {synced['name']}").document
        assert found == pulp(f"show --href {found['pulp_href']}").document
    assert pulp("content list --limit 2").document[0].keys() >= {"pulp_href", "prn", "artifacts"}
    assert isinstance(pulp("distribution list").document, list)


def test_workers_are_the_schedulers(pulp: PulpCommand) -> None:
    with _scheduler() as name:
        (found,) = pulp(f"worker list --online --name {name}").document
        assert pulp(f"worker show --href {found['pulp_href']}").document == found
        assert pulp(f"worker show --name {name}").document == found
        assert pulp(f"worker list --missing --name-contains {name}").document == []


@contextmanager
def _scheduler() -> Iterator[str]:
    """A scheduler as Airflow records it; its name."""
    from airflow.jobs.job import Job, JobState
    from airflow.utils.session import create_session

    with create_session() as session:
        job = Job(job_type="SchedulerJob", state=JobState.RUNNING)
        job.latest_heartbeat = datetime.now(timezone.utc)
        session.add(job)
        session.flush()
        job_id, name = job.id, f"{job.id}@{job.hostname}"
    try:
        yield name
    finally:
        with create_session() as session:
            session.query(Job).filter(Job.id == job_id).delete()


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
