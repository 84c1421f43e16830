"""The example DAGs of the documentation: loaded as Airflow loads them, and run by a real one from a real registry."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from support.airflow_instance import AirflowInstance
from support.composed import EXAMPLES, Composed
from support.rest_api import RestClient

MIRRORS_OF_ONE_HOST = ("docker_hub_alpine", "docker_hub_hello-world")
GATE = "promote_with_a_gate"
GROUPED = "mirrors_in_groups"
LISTED = "mirrors_of_a_list"
BY_HAND = "five_operators"
DAGS = (
    BY_HAND,
    "collect_weekly",
    "mirror_alpine",
    "mirror_and_notify",
    "mirror_many",
    "publish_weekly",
    GROUPED,
    LISTED,
    *MIRRORS_OF_ONE_HOST,
    GATE,
    "smallest",
    "list_changed_tags",
    "log_new_versions",
    "mirror_when_moved",
    "mirrors_in_one_task",
    "promote_after_tests",
    "redeploy",
    "scan_moved_tags",
)


@pytest.fixture
def examples(composed: Composed) -> AirflowInstance:
    """An Airflow with the examples, and the settings of the documentation that import in advance."""
    return composed.airflow


def tag_counts(version: dict[str, Any]) -> dict[str, int]:
    summary = version["content_summary"]
    return {part: summary[part].get("docker.tag", {}).get("count", 0) for part in ("added", "present", "removed")}


def test_airflow_finds_exactly_the_examples() -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(EXAMPLES)
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(DAGS)


def test_the_weekly_collection_runs_beside_the_syncs(examples: AirflowInstance) -> None:
    run = examples.trigger("collect_weekly")
    assert examples.wait(run) == "success", examples.reasons(run)
    assert examples.xcom(run, "collect_orphans")["manifest_count"] == 0


def test_the_dag_of_ones_own_syncs_what_its_filters_let_in(examples: AirflowInstance) -> None:
    run = examples.trigger("mirror_alpine")
    assert examples.wait(run) == "success", examples.reasons(run)
    version = examples.xcom(run, "alpine.commit_version")["version"]
    assert tag_counts(version) == {"added": 3, "present": 3, "removed": 0}
    (published,) = RestClient(examples.url, examples.token()).get("distributions/docker/docker/", name="alpine")[
        "results"
    ]
    assert published["private"]
    for is_changed in (True, False):
        run = examples.trigger("publish_weekly")
        assert examples.wait(run) == "success", examples.reasons(run)
        published = examples.xcom(run, "publish")
        assert published["is_changed"] == is_changed
        assert published["distribution"]["base_path"] == "stable/alpine"
        assert published["distribution"]["repository_version"] == version["pulp_href"]


def gate_runs(examples: AirflowInstance) -> list[str]:
    return [run["dag_run_id"] for run in examples.api("GET", f"/dags/{GATE}/dagRuns?order_by=id")["dag_runs"]]


def triggered_by(examples: AirflowInstance) -> str:
    """The name of the user whom the tests sign in as."""
    run = examples.api("GET", f"/dags/{GATE}/dagRuns/{gate_runs(examples)[0]}/taskInstances/approve/-1/hitlDetails")
    name: str = run["responded_by_user"]["name"]
    return name


def await_executor(examples: AirflowInstance, run: str, task: str) -> None:
    """Until the scheduler knows that the process of a task that waits for a person has ended.

    It would take that end for a failure of what goes on, were the answer there before.
    """
    logged = re.compile(rf"Received executor event with state success for task instance .*'{task}'.*{re.escape(run)}")
    deadline = time.monotonic() + 60
    while not logged.search(examples.process_log("scheduler")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def response(examples: AirflowInstance, run: str, option: str) -> None:
    """Answers what a run waits for, as a person does under Required Actions."""
    detail = f"/dags/{GATE}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    examples.api("PATCH", detail, json={"chosen_options": [option]})


def test_a_new_version_is_promoted_once_somebody_has_seen_what_changes(examples: AirflowInstance) -> None:
    """The run begins by itself when the repository has a version, waits without a slot, and promotes what it showed."""
    if not gate_runs(examples):
        assert examples.wait(examples.trigger("mirror_alpine")) == "success"
    deadline = time.monotonic() + 90
    while not (runs := gate_runs(examples)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    run = examples.remember(GATE, runs[0])
    examples.await_task(run, "approve", state="awaiting_input")
    await_executor(examples, run, "approve")
    assert examples.xcom(run, "compare")["names"] == {"added": ["3.20", "3.21"], "removed": [], "moved": []}
    details = examples.api("GET", f"/dags/{GATE}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails")
    assert details["subject"] == "Promote version 1 of alpine to alpine-production?"
    assert "**2 tags added**: 3.20, 3.21" in details["body"]
    response(examples, run, "Approve")
    assert examples.wait(run) == "success", examples.reasons(run)
    promoted = examples.xcom(run, "promote")
    assert (promoted["repository"], promoted["missing_blob_count"]) == ("alpine-production", 0)
    assert tag_counts(promoted["version"]) == {"added": 2, "present": 2, "removed": 0}
    origin = RestClient(examples.url, examples.token()).get(promoted["version"]["pulp_href"])["origin"]
    assert (origin["kind"], origin["created_by"]) == ("copy", triggered_by(examples))
    again = examples.trigger(GATE)
    assert examples.wait(again) == "success"
    assert examples.task_states(again) == {"compare": "success", "approve": "skipped", "promote": "skipped"}


def first_run(examples: AirflowInstance, dag_id: str) -> str:
    """The first run of a DAG that assets start, when it has ended well."""
    deadline = time.monotonic() + 90
    while not (found := examples.api("GET", f"/dags/{dag_id}/dagRuns?order_by=id")["dag_runs"]):
        assert time.monotonic() < deadline, dag_id
        time.sleep(0.2)
    run = examples.remember(dag_id, found[0]["dag_run_id"])
    assert examples.wait(run) == "success", examples.reasons(run)
    return run


def test_what_a_sync_brought_is_scanned_tested_promoted_and_rolled_out(composed: Composed) -> None:
    """Three DAGs after one another, each started by a version, each with the digests of the tags that it changed."""
    examples = composed.airflow
    if not gate_runs(examples):
        assert examples.wait(examples.trigger("mirror_alpine")) == "success"
    scanned = first_run(examples, "scan_moved_tags")
    images = examples.xcom(scanned, "images")
    tested = first_run(examples, "promote_after_tests")
    tags = examples.xcom(tested, "changed")
    assert [tag["name"] for tag in tags] == ["3.20", "3.21", "latest"]
    assert images == sorted({f"pulls.example.org:5050/alpine@{tag['digest']}" for tag in tags})
    promoted = examples.xcom(tested, "promote")
    assert (promoted["repository"], promoted["version"]["number"]) == ("alpine-tested", 1)
    (rolled_out,) = examples.xcom(first_run(examples, "redeploy"), "roll_out")
    assert rolled_out == f"pulls.example.org:5050/alpine-tested@{tags[-1]['digest']}"
    called = composed.called.read_text().splitlines()
    for image in images:
        assert f"trivy image --exit-code 1 --severity CRITICAL --ignore-unfixed {image}" in called
        assert f"podman run --rm {image} /bin/busybox true" in called
    assert f"kubectl set image deployment/shell shell={rolled_out}" in called


def test_the_smallest_dag_makes_a_version_and_skips_when_nothing_changed(examples: AirflowInstance) -> None:
    first = examples.trigger("smallest")
    assert examples.wait(first) == "success", examples.reasons(first)
    assert tag_counts(examples.xcom(first, "tiny.commit_version")["version"])["present"] == 8
    second = examples.trigger("smallest")
    assert examples.wait(second) == "success"
    assert sorted(examples.task_states(second).values()) == ["skipped"] * 4 + ["success"]


def test_every_new_version_of_many_syncs_is_logged_once(examples: AirflowInstance) -> None:
    """Three runs of the delivered DAG, a version each, and each version in exactly one line."""
    run = examples.trigger("mirror_many")
    assert examples.wait(run) == "success", examples.reasons(run)
    wanted = {
        "archive: version 1, 5 tags added, 0 removed",
        "hello-world: version 1, 8 tags added, 0 removed",
    }
    logged: list[str] = []
    seen: set[str] = set()
    deadline = time.monotonic() + 90
    while not wanted <= set(logged):
        assert time.monotonic() < deadline, logged
        for entry in examples.api("GET", "/dags/log_new_versions/dagRuns")["dag_runs"]:
            if entry["dag_run_id"] not in seen:
                seen.add(entry["dag_run_id"])
                follower = examples.remember("log_new_versions", entry["dag_run_id"])
                assert examples.wait(follower) == "success"
                logged += examples.xcom(follower, "log_versions")
    assert len(logged) == len(set(logged))


@pytest.mark.rule("A9.8")
def test_tasks_in_one_pool_take_turns_whatever_run_they_are_of(examples: AirflowInstance) -> None:
    """Two runs of two DAGs at once, in a pool with one slot: no two of their tasks are at work at the same time."""
    pool = {"name": "docker_hub", "slots": 1, "description": "", "include_deferred": False}
    examples.api("POST", "/pools", json=pool)
    runs = [examples.trigger(dag_id) for dag_id in MIRRORS_OF_ONE_HOST]
    assert {examples.wait(run) for run in runs} == {"success"}
    tasks = [task for run in runs for task in examples.task_instances(run) if task["state"] == "success"]
    spans = sorted((task["start_date"], task["end_date"], task["pool"]) for task in tasks)
    assert len(spans) == 4
    assert {pool for _, _, pool in spans} == {"docker_hub"}
    assert all(ended <= began for (_, ended, _), (began, _, _) in itertools.pairwise(spans))


def test_two_syncs_in_groups_of_one_dag_make_a_version_each(examples: AirflowInstance) -> None:
    """Each skips what it does not need of its own group."""
    run = examples.trigger(GROUPED)
    assert examples.wait(run) == "success", examples.reasons(run)
    states = examples.task_states(run)
    for name, tags in (("alpine", 4), ("hello-world", 8)):
        group = f"docker_hub.{name}"
        assert (states[f"{group}.fetch_manifests"], states[f"{group}.plan_blobs"]) == ("skipped", "skipped")
        committed = examples.xcom(run, f"{group}.commit_version")
        assert committed["repository"] == f"library/{name}"
        assert tag_counts(committed["version"]) == {"added": tags, "present": tags, "removed": 0}
    again = examples.trigger(GROUPED)
    assert examples.wait(again) == "success"
    assert sorted(examples.task_states(again).values()) == ["skipped"] * 8 + ["success"] * 2


def test_the_repositories_of_a_list_are_synced_by_two_mapped_tasks_each(examples: AirflowInstance) -> None:
    """And are labelled by their names in the grid."""
    run = examples.trigger(LISTED)
    assert examples.wait(run) == "success", examples.reasons(run)
    labels = {
        (task["task_id"], task["map_index"]): task["rendered_map_index"]
        for task in examples.task_instances(run)
        if task["map_index"] >= 0
    }
    for index, name in enumerate(("library/alpine", "library/hello-world")):
        for task_id in ("mirror.sync.list_tags", "mirror.sync.fetch_and_commit"):
            assert labels[task_id, index] == name
        assert examples.xcom(run, "mirror.sync.fetch_and_commit", map_index=index)["repository"] == name


def test_the_operators_wired_by_hand_make_a_version(examples: AirflowInstance) -> None:
    run = examples.trigger(BY_HAND)
    assert examples.wait(run) == "success", examples.reasons(run)
    assert tag_counts(examples.xcom(run, "commit_version")["version"])["present"] == 8


#: Imports Airflow, initializes it for each command in a process of its own, and says what that has loaded.
INITIALIZE = """
import os, shlex, sys
os.environ["_AIRFLOW__AS_LIBRARY"] = "True"  # nothing is initialized by the import
import airflow.settings

for command in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv[1:] = shlex.split(command)
        airflow.settings.initialize()
        print(command, "registry_sync.sync.fetch_blobs" in sys.modules, sep=": ", flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, command
"""


def test_what_forks_tasks_has_loaded_what_they_need(examples: AirflowInstance) -> None:
    """And no other command has. The settings file is the one that the Airflow of this test has loaded."""
    command = [sys.executable, "-c", INITIALIZE, "scheduler", "celery worker", "version"]
    done = subprocess.run(command, env=examples.environment, capture_output=True, text=True, check=True)
    loaded = [line for line in done.stdout.splitlines() if line.endswith((": True", ": False"))]
    assert loaded == ["scheduler: True", "celery worker: True", "version: False"]
    assert "could not be rehearsed" not in done.stdout + done.stderr
