"""DAGs that start one another, in a real Airflow: a version one that follows it, a moved tag the sync of its mirror."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import update

from registry_sync.db.database import Database
from registry_sync.db.tables import sync_runs
from support import declared_fleet
from support.airflow_instance import BUSY_SECONDS, POLL_SECONDS, AirflowInstance
from support.filling import push
from support.images import RepositoryContent
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.mirrors import small_repository
from support.recipients import MailServer, Webhook, serving
from support.registry import RegistryServer
from support.shapes import wide

ASSET = "registry_sync/declared"
#: The ``freshness`` of a declared mirror.
PROMISED = timedelta(minutes=10)


def asset(airflow: AirflowInstance) -> dict[str, Any]:
    (found,) = airflow.api("GET", f"/assets?name_pattern={ASSET}")["assets"]
    return dict(found)


def events(airflow: AirflowInstance) -> list[dict[str, Any]]:
    found = airflow.api("GET", f"/assets/events?asset_id={asset(airflow)['id']}&order_by=timestamp")["asset_events"]
    return [event["extra"] for event in found]


def followed(airflow: AirflowInstance, count: int) -> str:
    """The newest run of the following DAG, once there are ``count`` of them and it has ended well."""
    runs = airflow.await_runs("follows", count)
    assert len(runs) == count
    run = str(runs[-1]["dag_run_id"])
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
        time.sleep(POLL_SECONDS)
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
            airflow.kill_part("triggerer", job_type="TriggererJob")
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


def test_a_registry_that_notifies_starts_the_sync(airflow: AirflowInstance, tmp_path: Path) -> None:
    """A real registry sends its own notifications, of a push by tag and of all that comes with it."""
    content, secret = wide(0.01, tags=2), "a secret of enough characters"
    digest = content.tags["build-1"]
    hook = {"connection_id": "pushes", "conn_type": "registry_webhook", "password": secret}
    airflow.api("POST", "/connections", {**hook, "extra": '{"kind": "distribution"}'})
    address = f"{airflow.url}/pulp/api/v3/webhooks/pushes/"
    endpoint = {"name": "airflow", "url": address, "headers": {"Authorization": [f"Bearer {secret}"]}}
    endpoint |= {"timeout": "60s", "threshold": 5, "backoff": "1s"}

    def notified() -> list[dict[str, Any]]:
        listed = airflow.api("GET", "/dags/registry_sync/dagRuns?run_id_pattern=webhook__&order_by=id")["dag_runs"]
        return [run for run in listed if run["conf"].get("repository") == "notified"]

    with RegistryServer(tmp_path / "registry", config={"notifications": {"endpoints": [endpoint]}}) as registry:
        push(registry, "team/notified", content.closure(["build-0"]))
        airflow.sync(repository="notified", url=registry.url, upstream_name="team/notified")
        part = content.closure(["build-1"])
        moved_at = time.time()
        push(registry, "team/notified", RepositoryContent({"build-0": digest}, part.manifests, part.blobs))
        (run,) = until(notified, "a run of the webhook")
        assert airflow.wait(airflow.remember("registry_sync", run["dag_run_id"])) == "success"
        (run,) = notified()
        print("seconds from the push to the run:", started_at(run) - moved_at)
        assert run["triggering_user_name"] == "webhook pushes"
        assert run["note"].startswith("notified: version 2, +1 \N{MINUS SIGN}1 tags"), run["note"]


def is_known(airflow: AirflowInstance, dag_id: str) -> bool:
    return any(dag["dag_id"] == dag_id for dag in airflow.api("GET", f"/dags?dag_id_pattern={dag_id}")["dags"])


def started_at(run: dict[str, Any]) -> float:
    return datetime.fromisoformat(run["start_date"].replace("Z", "+00:00")).timestamp()


def test_a_guard_and_a_passed_deadline_each_tell_a_mail_server_and_a_webhook_once(
    airflow: AirflowInstance, recipients: tuple[MailServer, Webhook]
) -> None:
    """Twice a run is stopped and passes its deadline, and once each is told, by connections of the environment."""
    mails, webhook = recipients
    dag_id = "mirror.fleet.promised"
    registry = MemoryRegistry()

    def told() -> tuple[list[str], list[str]]:
        return (
            [str(mail["Subject"]) for mail in mails.mails],
            [state["state"] for post in webhook.posted for state in post["states"]],
        )

    def stopped_past_its_deadline() -> str:
        """A run that waits for an approval until its deadline has passed and Airflow has called what it is to call."""
        run = airflow.trigger(dag_id)
        airflow.await_task(run, "commit_version", state="awaiting_input")
        let_pass(airflow, run, PROMISED)
        assert airflow.await_deadline(run) == "success", airflow.process_log("scheduler")[-3000:]
        return run

    with over_http(registry) as server, serving(mails), serving(webhook):
        declared_fleet.write(airflow.layout.folder / "fleet", server.base)
        registry.serve("library/hello-world", small_repository(0, tags=3))
        run = airflow.trigger(dag_id)
        assert airflow.wait(run) == "success", airflow.reasons(run)
        registry.serve("library/hello-world", small_repository(0, tags=1))
        run = stopped_past_its_deadline()
        prefix = "registry-sync: fleet/promised"
        once = ([f"{prefix} was stopped by its guard", f"{prefix} is older than promised"], ["guard", "stale"])
        assert told() == once
        airflow.api("PATCH", f"/dags/{dag_id}/dagRuns/{run}", {"state": "failed"})
        run = stopped_past_its_deadline()
        airflow.api("PATCH", f"/dags/{dag_id}/dagRuns/{run}", {"state": "failed"})
        assert told() == once
    assert "airflow registry-sync run approve" in mails.texts()[0]
    assert "10 min is promised" in mails.texts()[1]


def let_pass(airflow: AirflowInstance, run: str, promised: timedelta) -> None:
    """Lets the last good sync of the mirror, and then the deadline of a run, be as long ago as it may be at most.

    The deadline is that long after the run was queued.
    """
    own = airflow.home / "registry_sync" / "registry_sync.db"
    with Database.connect(f"sqlite:///{own}") as database:
        settled = database.runs.latest_settled(database.repositories.by_name("fleet/promised").id)
        assert settled is not None
        assert settled.finished_at is not None
        if settled.finished_at > datetime.now(timezone.utc) - promised:
            at = settled.finished_at - promised
            with database.writing() as connection:
                connection.execute(update(sync_runs).where(sync_runs.c.id == settled.id).values(finished_at=at))
    with closing(sqlite3.connect(airflow.layout.database, timeout=BUSY_SECONDS)) as of_airflow, of_airflow:
        of_run = "FROM deadline JOIN dag_run ON dag_run.id = dagrun_id WHERE run_id = ?"
        row = of_airflow.execute(f"SELECT deadline.id, deadline_time, queued_at {of_run}", [run]).fetchone()
        due_at, queued_at = map(datetime.fromisoformat, row[1:])
        assert due_at - queued_at == promised
        earlier = f"{due_at - promised:%Y-%m-%d %H:%M:%S.%f}"
        of_airflow.execute("UPDATE deadline SET deadline_time = ? WHERE id = ?", [earlier, row[0]])


def test_a_small_mirror_logs_less_than_25_lines_and_ends_with_what_it_did(
    airflow: AirflowInstance, upstream: RegistryServer
) -> None:
    """As the UI shows them, before a group is opened: the titles of Airflow's groups count, not what is in them."""
    run = airflow.sync(repository="quiet", url=upstream.url, upstream_name="library/hello-world")
    done = [task for task, state in airflow.task_states(run).items() if state == "success"]
    shown = {task: folded(airflow.task_log(run, *task_of(task)).splitlines()) for task in done}
    assert sum(map(len, shown.values())) < 25, shown
    own = [line for line in shown["commit_version"] if not line.startswith("::group::")]
    assert own[-1] == (
        "version 1: added 31 blobs, 21 manifests, 8 tags; removed nothing; present 31 blobs, 21 manifests, 8 tags"
    )
    assert not any("alembic" in line or "Running upgrade" in line for lines in shown.values() for line in lines)


def task_of(name: str) -> tuple[str, int]:
    """A task's id and its map index of ``fetch_blobs[0]``."""
    task_id, _, index = name.rstrip("]").partition("[")
    return task_id, int(index or -1)


def folded(lines: list[str]) -> list[str]:
    """The lines outside of groups, and the titles of groups."""
    shown, is_inside = [], False
    for line in lines:
        if line.startswith("::endgroup::"):
            is_inside = False
        elif not is_inside:
            shown.append(line)
            is_inside = line.startswith("::group::")
    return shown
