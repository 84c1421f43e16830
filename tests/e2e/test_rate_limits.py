"""A registry that limits pulls, and a real Airflow: the task waits without holding anything, as long as it was told."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from registry_sync.db.database import Database
from registry_sync.db.fleet_tables import registry_accounts
from support.airflow_instance import AirflowInstance
from support.certificates import CertificateAuthority
from support.dag_runners import Scheduled
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply, wait_until
from support.images import RepositoryContent
from support.lookalikes import known
from support.lookalikes.manifests import PULLS_ALLOWED
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.registry import RegistryServer
from support.serving import serve
from support.shapes import every_kind

WAIT_SECONDS = 120
#: Requests that are on their way when the first refusal arrives.
CONCURRENCY = 4


class LimitingRegistry:
    """Serves ``content``, and refuses the first listing, and every pull of a manifest from the second on, until
    :attr:`is_open` is set.
    """

    def __init__(self, content: RepositoryContent) -> None:
        self.server = serve(HostileRegistry(), "limited", content)
        self.is_open = threading.Event()
        self.refused_count = 0
        self._given_count = 0
        self._lock = threading.Lock()
        limited = errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", str(WAIT_SECONDS))])
        self.server.on("GET", "/v2/limited/tags/list", limited, json_reply({"tags": sorted(content.tags)}))
        for digest, manifest in content.manifests.items():
            path = f"/v2/limited/manifests/{digest}"
            self.server.on("GET", path, self._limit(reply(200, manifest.data, content_type=manifest.media_type)))

    def _limit(self, response: Raw) -> Any:
        def answered(_request: Request) -> Raw:
            with self._lock:
                self._given_count += 1
                if self._given_count > 1 and not self.is_open.is_set():
                    self.refused_count += 1
                    return errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", str(WAIT_SECONDS))])
            return response

        return answered


@pytest.fixture
def limiting() -> Iterator[tuple[LimitingRegistry, RepositoryContent]]:
    content = every_kind(seed=4242)
    registry = LimitingRegistry(content)
    with registry.server:
        yield registry, content


class Waiting:
    """The record of a task that waits for its next try, in Airflow's own database."""

    def __init__(self, airflow: AirflowInstance, run_id: str, task_id: str, map_index: int) -> None:
        self._path = airflow.layout.database
        self._own_path = airflow.home / "registry_sync" / "registry_sync.db"
        self._key = (run_id, task_id, map_index)

    def seconds(self) -> float:
        """From the end of the try that failed to the earliest start of the next."""
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            (seconds,) = connection.execute(
                "SELECT retry_delay_override FROM task_instance WHERE run_id = ? AND task_id = ? AND map_index = ?",
                self._key,
            ).fetchone()
        return float(seconds)

    def pass_time(self, seconds: float) -> None:
        """Lets the try have ended so much earlier, and what registries reported be so much older."""
        past = timedelta(seconds=seconds)
        with Database.connect(f"sqlite:///{self._own_path}") as database, database.writing() as connection:
            for row in connection.execute(select(registry_accounts)).all():
                times = {name: getattr(row, name) for name in ("reported_at", "began_at", "paused_until")}
                connection.execute(
                    update(registry_accounts)
                    .where(registry_accounts.c.account == row.account)
                    .values({name: at and at - past for name, at in times.items()})
                )
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            changed = connection.execute(
                "UPDATE task_instance SET end_date = datetime(end_date, ?) || '.000000' "
                "WHERE run_id = ? AND task_id = ? AND map_index = ? AND state = 'up_for_retry'",
                (f"-{seconds} seconds", *self._key),
            )
            assert changed.rowcount == 1


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.rule("A9.5", "A9.7")
def test_a_task_with_a_retry_after_of_two_minutes_holds_nothing_meanwhile_and_then_continues(
    airflow: AirflowInstance, limiting: tuple[LimitingRegistry, RepositoryContent], upstream: RegistryServer
) -> None:
    registry, content = limiting
    conf = {"repository": "limited", "url": registry.server.base, "upstream_name": "limited"}
    run = airflow.trigger(conf={**conf, "download_concurrency": CONCURRENCY})
    airflow.await_task(run, "list_tags", state="up_for_retry")
    listing = Waiting(airflow, run, "list_tags", -1)
    assert WAIT_SECONDS - 5 < listing.seconds() <= WAIT_SECONDS
    assert len(registry.server.asked("GET", "/v2/limited/tags/list")) == 1
    listing.pass_time(WAIT_SECONDS)
    airflow.await_task(run, "fetch_manifests", 0, state="up_for_retry")
    task = next(t for t in airflow.task_instances(run) if (t["task_id"], t["map_index"]) == ("fetch_manifests", 0))
    assert task["try_number"] == 1
    assert wait_until(lambda: not is_running(task["pid"]), 10), "its process ends"
    pool = airflow.api("GET", "/pools/default_pool")
    assert (pool["occupied_slots"], pool["running_slots"], pool["queued_slots"]) == (0, 0, 0)
    waiting = Waiting(airflow, run, "fetch_manifests", 0)
    assert WAIT_SECONDS - 5 < waiting.seconds() <= WAIT_SECONDS
    assert 0 < registry.refused_count <= CONCURRENCY, "nothing is asked once the registry has said how long to wait"

    other = airflow.sync(repository="meanwhile", url=upstream.url, upstream_name="library/hello-world")
    assert airflow.task_states(other)["list_tags"] == "success"
    assert airflow.task_states(run)["fetch_manifests[0]"] == "up_for_retry"

    registry.is_open.set()
    asked = len(registry.server.asked("GET"))
    waiting.pass_time(WAIT_SECONDS - 20)
    assert airflow.task_states(run)["fetch_manifests[0]"] == "up_for_retry", "some of the time is left"
    waiting.pass_time(20)
    assert airflow.wait(run, timeout_seconds=60) == "success"
    assert len(registry.server.asked("GET")) > asked
    version = airflow.xcom(run, "commit_version")["version"]
    assert version["content_summary"]["present"]["docker.manifest"]["count"] == len(content.manifests)
    tries = [t["try_number"] for t in airflow.task_instances(run) if t["task_id"] == "fetch_manifests"]
    assert tries == [2]


#: Docker Hub's window, which its headers tell.
WINDOW_SECONDS = 6 * 3600
PULLED_AT_MOST = 12


@pytest.mark.rule("A9.6")
def test_a_floor_of_pulls_is_kept_and_the_rest_waits_for_the_next_window(
    airflow: AirflowInstance, tmp_path: Path
) -> None:
    content = every_kind(seed=4243)
    certificate = CertificateAuthority(tmp_path).server(hosts=HOSTS)
    hub = replace(known.DOCKER_HUB, manifests=replace(known.DOCKER_HUB.manifests, is_limited_at_first=False))
    assert PULLED_AT_MOST < len(content.manifests) < 2 * PULLED_AT_MOST
    with LookAlikeServer(hub, content, certificate) as server:
        connection = server.connection
        connection["extra"]["rate_limit_floor"] = PULLS_ALLOWED - PULLED_AT_MOST
        Scheduled(airflow).connect("at_floor", connection)
        conf = {"repository": "at-floor", "url": server.url, "upstream_name": hub.repository, "conn_id": "at_floor"}
        run = airflow.trigger(conf={**conf, "download_concurrency": CONCURRENCY})
        airflow.await_task(run, "fetch_manifests", 0, state="up_for_retry")
        assert PULLED_AT_MOST - CONCURRENCY < len(server.manifests.pulled) <= PULLED_AT_MOST
        waiting = Waiting(airflow, run, "fetch_manifests", 0)
        assert WINDOW_SECONDS - 60 < waiting.seconds() <= WINDOW_SECONDS
        pulled = set(server.manifests.pulled)
        server.forget()
        waiting.pass_time(WINDOW_SECONDS)
        assert airflow.wait(run, timeout_seconds=60) == "success"
        assert len(server.manifests.pulled) <= PULLED_AT_MOST
    assert pulled | set(server.manifests.pulled) == set(content.manifests)
    assert server.witness.violations == []
