"""What Airflow's own provider for OpenLineage sends: upstreams that were read, and versions that were made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from local_airflow.layout import CHECKOUT, Layout
from local_airflow.settings import airflow_settings
from support.filling import place
from support.images import ContentBuilder
from support.registry import RegistryServer

PACKAGES = CHECKOUT / ".local/lineage"
PROGRAM = Path(__file__).parents[1] / "support" / "lineage_program.py"
DAG = """
from airflow.sdk import DAG
from registry_sync.operators.promote_tags import PromoteTagsOperator
from registry_sync.operators.publish_version import PublishVersionOperator
from registry_sync.operators.roll_back_version import RollBackVersionOperator
from registry_sync.operators.sync_mirrors import SyncMirrorsOperator
from registry_sync.operators.sync_repository import sync_repository

URL, REPLACE = {url!r}, {{"replace_upstream": True}}
with DAG("lineage", schedule=None, default_args={{"retries": 0}}):
    sync = sync_repository("app", url=URL, upstream_name="team/app", tags=["one"], small=True)
    promote = PromoteTagsOperator(task_id="promote", source="app", target="stable", number=1)
    publish = PublishVersionOperator(task_id="publish", base_path="apps/stable", repository="stable", number=1)
    other = sync_repository("stable", url=URL, upstream_name="team/app", mode="additive", small=True, **REPLACE)
    back = RollBackVersionOperator(task_id="roll_back", repository="stable", number=1, trigger_rule="none_failed")
    shared = {{"url": URL, "upstream_name": "team/app"}}
    several = SyncMirrorsOperator(
        task_id="several",
        mirrors=[{{"repository": name, **shared}} for name in ("app", "first", "second")],
        hand_over=False,
    )
    sync >> promote >> publish >> other >> back >> several
"""


class Receiver:
    """Takes the events of OpenLineage."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        events = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def completed(self) -> dict[str, dict[str, Any]]:
        """The events of tasks that succeeded, by task."""
        return {
            event["job"]["name"].partition(".")[2]: event
            for event in self.events
            if event["eventType"] == "COMPLETE" and "." in event["job"]["name"]
        }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    assert (PACKAGES / "installed").exists(), "`make .local/lineage/installed` installs Airflow's provider"
    made = Receiver()
    yield made
    made.close()


def lineage_settings(folder: Path) -> dict[str, str]:
    """What a local Airflow sets for the provider."""
    layout = Layout(folder=folder, dags=CHECKOUT / "dags", plugins=CHECKOUT / "plugins")
    return airflow_settings(layout, 0, defaultdict(str))["openlineage"]


def datasets(event: dict[str, Any], side: str) -> list[tuple[str, str, str | None]]:
    """Namespace, name and version of each."""
    return [
        (each["namespace"], each["name"], each.get("facets", {}).get("version", {}).get("datasetVersion"))
        for each in event[side]
    ]


def test_a_sync_a_promotion_a_publication_and_a_rollback(
    airflow_database: Path, tmp_path: Path, receiver: Receiver
) -> None:
    build = ContentBuilder(15)
    for tag in ("one", "two"):
        build.tag(tag, build.image([build.blob(500)]))
    folder, home = tmp_path / "dags", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    shutil.copy(airflow_database / "airflow.db", home / "airflow.db")
    with RegistryServer(tmp_path / "registry") as registry:
        place(registry, "team/app", build.content())
        (folder / "lineage.py").write_text(DAG.format(url=registry.url))
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                [
                    {
                        "name": "lineage",
                        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                        "kwargs": {"path": str(folder)},
                    }
                ]
            ),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": receiver.url}),
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
            **{f"AIRFLOW__OPENLINEAGE__{name}".upper(): value for name, value in lineage_settings(tmp_path).items()},
            "PYTHONPATH": os.pathsep.join([*sys.path, str(PACKAGES)]),
        }
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert "failed" not in done.stdout.rpartition("STATES")[2], done.stdout[-3000:] + done.stderr[-3000:]
    forks = int(done.stdout.rpartition("FORKS")[2].split()[0])
    assert forks == 1, "one process for the events of runs, and none for each event of a task"
    completed = receiver.completed()
    upstream = (f"oci://{registry.netloc}", "team/app", None)

    def version(repository: str, number: int) -> tuple[str, str, str]:
        return "x-registry-sync://repositories", repository, str(number)

    found = {
        task: (datasets(event, "inputs"), datasets(event, "outputs"))
        for task, event in completed.items()
        if event["inputs"]
    }
    assert found == {
        "app.fetch_and_commit": ([upstream], [version("app", 1)]),
        "promote": ([version("app", 1)], [version("stable", 1)]),
        "stable.fetch_and_commit": ([upstream], [version("stable", 2)]),
        "roll_back": ([version("stable", 1)], [version("stable", 3)]),
        "publish": ([version("stable", 1)], [("x-registry-sync://base-paths", "apps/stable", "1")]),
        "several": ([upstream], [version("first", 1), version("second", 1)]),  # nothing changed in app
    }
    (made,) = completed["app.fetch_and_commit"]["outputs"]
    facet = made["facets"]["registrySync_version"]
    assert (facet["origin"], facet.get("baseNumber"), facet["counts"]["added"]["docker.tag"]) == ("sync", None, 1)
    assert facet["href"].endswith("/versions/1/")
    for made in completed["several"]["outputs"]:
        assert made["facets"]["registrySync_version"]["upstream"] == f"oci://{registry.netloc}/team/app"
