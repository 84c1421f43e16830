"""DAGs that start one another, in a real Airflow: a version one that follows it, a moved tag the sync of its mirror."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from support.airflow_instance import AirflowInstance
from support.filling import push
from support.images import RepositoryContent
from support.registry import RegistryServer
from support.shapes import wide

ASSET = "registry_sync/declared"


def asset(airflow: AirflowInstance) -> dict[str, Any]:
    (found,) = airflow.api("GET", f"/assets?name_pattern={ASSET}")["assets"]
    return dict(found)


def events(airflow: AirflowInstance) -> list[dict[str, Any]]:
    found = airflow.api("GET", f"/assets/events?asset_id={asset(airflow)['id']}&order_by=timestamp")["asset_events"]
    return [event["extra"] for event in found]


def followed(airflow: AirflowInstance, count: int) -> str:
    """The newest run of the following DAG, once there are ``count`` of them and it has ended well."""
    deadline = time.monotonic() + 60
    while len(runs := airflow.api("GET", "/dags/follows/dagRuns?order_by=id")["dag_runs"]) < count:
        assert time.monotonic() < deadline, runs
        time.sleep(0.2)
    assert len(runs) == count
    run = airflow.remember("follows", runs[-1]["dag_run_id"])
    assert airflow.wait(run) == "success", airflow.reasons(run)
    return run


def test_a_dag_starts_with_the_moved_tags_in_hand_for_each_new_version_and_for_nothing_else(
    airflow: AirflowInstance, tmp_path: Path
) -> None:
    airflow.await_dag("declares")
    airflow.await_dag("follows")
    declared = asset(airflow)
    producers = [(task["dag_id"], task["task_id"]) for task in declared["producing_tasks"]]
    assert producers == [("declares", "declared.fetch_and_commit")], "known before its first version"
    content = wide(0.01, tags=4)
    old, new = (content.tags[name] for name in ("build-0", "build-3"))
    with RegistryServer(tmp_path / "registry") as registry:
        push(registry, "team/app", content.closure(["build-0", "build-1"]))

        def sync() -> str:
            run = airflow.trigger("declares", conf={"url": registry.url})
            assert airflow.wait(run) == "success", airflow.reasons(run)
            return run

        sync()
        first = airflow.xcom(followed(airflow, 1), "changed")
        assert [(tag["name"], tag["previous_digest"]) for tag in first] == [("build-0", None), ("build-1", None)]
        moved = content.closure(["build-3"])
        push(registry, "team/app", RepositoryContent({"build-0": new}, moved.manifests, moved.blobs))
        run = sync()
        (tag,) = airflow.xcom(followed(airflow, 2), "changed")
        expected = {"name": "build-0", "digest": new, "previous_digest": old, "repository": "declared", "number": 2}
        assert tag == expected
        assert {task for task, state in airflow.task_states(sync()).items() if state == "skipped"} == {
            "declared.fetch_and_commit"
        }
    # A commit that succeeds without a version is no event either, though the asset is one of its outlets.
    task = "declared.fetch_and_commit"
    clear = {"dry_run": False, "only_failed": False, "dag_run_id": run, "task_ids": [task]}
    airflow.api("POST", "/dags/declares/clearTaskInstances", clear)
    assert airflow.wait(run) == "success", airflow.reasons(run)
    assert airflow.task(run, task).try_number == 2  # type: ignore[union-attr]
    assert [event["number"] for event in events(airflow)] == [1, 2]


def until(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` gives as soon as it is true."""
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def test_a_moved_tag_starts_a_sync_also_one_that_moved_while_the_triggerer_was_dead(
    airflow: AirflowInstance, tmp_path: Path
) -> None:
    """One run for each move: what was seen before the triggerer was killed is not seen again after it."""
    content = wide(0.01, tags=4)
    digests = [content.tags[f"build-{number}"] for number in range(4)]
    url = airflow.layout.dags / "watched-registry.txt"

    def runs(count: int) -> list[dict[str, Any]]:
        """The runs of the DAG that watches, once there are so many, and when all have ended well."""
        path = "/dags/watches/dagRuns?order_by=id"
        found: list[dict[str, Any]] = until(
            lambda: (listed := airflow.api("GET", path)["dag_runs"])[count - 1 :] and listed, f"{count} runs"
        )
        for run in found:
            airflow.remember("watches", run["dag_run_id"])
            assert airflow.wait(run["dag_run_id"]) == "success", airflow.reasons(run["dag_run_id"])
        ended: list[dict[str, Any]] = airflow.api("GET", path)["dag_runs"]
        return ended

    def move(name: str, to: int) -> None:
        part = content.closure([f"build-{to}"])
        push(registry, "team/app", RepositoryContent({name: digests[to]}, part.manifests, part.blobs))

    def changes(run: dict[str, Any]) -> list[tuple[str, str]]:
        """The tags that the events of a run report, with their digests."""
        path = f"/dags/watches/dagRuns/{run['dag_run_id']}/upstreamAssetEvents"
        listed = airflow.api("GET", path)["asset_events"]
        return [(tag["name"], tag["digest"]) for event in listed for tag in event["extra"]["payload"]["changes"]]

    with RegistryServer(tmp_path / "registry") as registry:
        move("latest", 0)
        move("stable", 0)
        url.write_text(registry.url)
        try:
            airflow.await_dag("follows")
            airflow.parse_again("follows")
            until(lambda: is_known(airflow, "watches"), "the DAG is parsed")
            (first,) = runs(1)
            assert changes(first) == []
            moved_at = time.time()
            move("latest", 1)
            second = runs(2)[1]
            print("seconds from the push to the run:", started_at(second) - moved_at)
            assert changes(second) == [("latest", digests[1])]
            airflow.kill_part("triggerer")
            move("stable", 2)
            airflow.start_part("triggerer")
            third = runs(3)[2]
            assert changes(third) == [("stable", digests[2])]
            registry.reset_counts()
            until(lambda: registry.log().manifest_head_count >= 6, "three more looks")
            assert len(runs(3)) == 3
        finally:
            airflow.api("PATCH", "/dags/watches", {"is_paused": True})
            url.unlink()


def is_known(airflow: AirflowInstance, dag_id: str) -> bool:
    return any(dag["dag_id"] == dag_id for dag in airflow.api("GET", f"/dags?dag_id_pattern={dag_id}")["dags"])


def started_at(run: dict[str, Any]) -> float:
    return datetime.fromisoformat(run["start_date"].replace("Z", "+00:00")).timestamp()
