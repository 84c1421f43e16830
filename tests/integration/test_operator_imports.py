"""What each task of a sync loads beyond what every task of Airflow does: this is what its start costs.

Each runs in a fork of an interpreter with Airflow, as a task does. Then what it has loaded is imported again in further
forks, and the time of the processor is taken. That depends on the machine and on what else runs there. So it is divided
by that of fixed work of the same kind, before and after in the same fork, and the median of such ratios is taken: what
is given in milliseconds are those of a machine on which the fixed work takes as long as ``REFERENCE_MS`` says.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import pytest

from registry_sync.db.database import Database
from support.fresh_interpreters import run_program
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.shapes import documented_example

#: The first lines are what reading the DAG file and Airflow's own part of a task load.
PROGRAM = """
import gc, importlib, importlib.util, json, marshal, os, sys, time, warnings
import airflow.sdk.execution_time.task_runner, airflow.dag_processing.dagbag
from airflow.sdk import DAG
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from registry_sync.operators.sync_repository import FETCH_TASKS, add_stages
from support.task_contexts import TaskContext

TIMES = 5
url = sys.argv[1]
warnings.simplefilter("ignore")


def in_fork(work, *arguments):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = json.dumps(work(*arguments)).encode()
            with os.fdopen(writing, "wb") as file:
                file.write(result)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        output = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(output)


def executed(run, make, *arguments):
    at_start = set(sys.modules)
    context = TaskContext(dag_id="registry_sync", run_id=run)
    with DAG("registry_sync", schedule=None):
        task = make(*arguments)
    try:
        result = task.execute(context.given())
    except Exception as skipped:
        assert type(skipped).__name__ == "DownstreamTasksSkipped", skipped
        result = None
    # in the order in which they were loaded
    return result, context.returned, [name for name in sys.modules if name not in at_start]


def listing(**more):
    return ListTagsOperator(
        task_id="list_tags", repository="hello", url=url, upstream_name="hello", trust_triggers=True, **more
    )


def small_listing():
    add_stages(task := listing(fetch_tasks=FETCH_TASKS), {})
    return task


def cpu_seconds(names, code):
    def of_reference():
        began = time.process_time()
        work(code)
        return time.process_time() - began

    references = [of_reference() for _ in range(3)]  # the first copies memory of the process that was forked
    began = time.process_time()
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:  # a name of another's own making
            pass
    own = time.process_time() - began
    return own, min(*references, of_reference())


def work(code):
    for one in code:
        exec(marshal.loads(one), {"__name__": "reference"})


def measured(run, make, *arguments):
    result, returned, names = in_fork(executed, run, make, *arguments)
    times = [in_fork(cpu_seconds, names, code) for _ in range(TIMES)]
    of_reference, reference = sorted((own / reference, reference) for own, reference in times)[TIMES // 2]
    return result, returned, {"names": names, "of_reference": of_reference, "reference_ms": reference * 1000}


# Modules of many functions and classes; what they import is loaded once they have run here.
names = ("_pydecimal", "argparse", "doctest", "mailbox", "pydoc", "tarfile")
code = [marshal.dumps(importlib.util.find_spec(name).loader.get_code(name)) for name in names]
work(code)
# As Airflow does before it forks tasks: a search for garbage through all that it has loaded would be measured instead.
gc.freeze()

found = {}
# A repository that is not small, in five tasks; the same again in two, when nothing of it is known.
shards, listed, _ = in_fork(executed, "run", listing)
sync_run = listed["sync_run"]
_, _, found["fetch_manifests"] = measured("run", lambda: FetchManifestsOperator(task_id="m", shard=shards[0]))
shards, _, found["plan_blobs"] = measured("run", lambda: PlanBlobsOperator(task_id="p", sync_run=sync_run))
_, _, found["fetch_blobs"] = measured("run", lambda: FetchBlobsOperator(task_id="b", shard=shards[0]))
_, _, found["commit_version"] = measured("run", lambda: CommitVersionOperator(task_id="c", sync_run=sync_run))
os.environ["AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN"] = sys.argv[2]
os.environ["AIRFLOW__REGISTRY_SYNC__BLOB_STORE"] += "-of-another"
_, _, found["list_tags"] = measured("run", small_listing)
json.dump(found, sys.stdout)
"""
#: Of other packages: what Airflow loads when it is asked for a connection, and requests over HTTP.
WITH_REQUESTS = {"airflow", "registry_sync", "urllib3"}
ALLOWED = {
    "list_tags": WITH_REQUESTS,
    "fetch_manifests": WITH_REQUESTS,
    "plan_blobs": WITH_REQUESTS,  # how many tasks a host admits is known where clients are made
    "fetch_blobs": WITH_REQUESTS,
    "commit_version": {"airflow", "registry_sync"},
}
#: The modules of ours. Each costs a millisecond on average.
MOST_OWN = {"list_tags": 108, "fetch_manifests": 96, "plan_blobs": 90, "fetch_blobs": 95, "commit_version": 63}
#: Milliseconds of the processor for all that a task loads, on a machine on which the reference takes so many.
MOST_MS = {"list_tags": 190, "fetch_manifests": 190, "plan_blobs": 150, "fetch_blobs": 190, "commit_version": 140}
REFERENCE_MS = 5.0


@dataclass(frozen=True)
class Loaded:
    """The names of the modules that a task loads, and the time of that as a multiple of the reference's."""

    names: list[str]
    of_reference: float
    reference_ms: float

    @property
    def milliseconds(self) -> float:
        return self.of_reference * REFERENCE_MS


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """What each task loads."""
    folder = tmp_path_factory.mktemp("imports")
    addresses = [f"sqlite:///{folder / name}.db" for name in ("one", "other")]
    for address in addresses:
        with Database.connect(address) as database:
            database.ready()
    registry = MemoryRegistry()
    registry.serve("hello", documented_example())
    settings = {"sql_alchemy_conn": addresses[0], "blob_store": (folder / "blobs").as_uri()}
    with over_http(registry) as server:
        output, _ = run_program(PROGRAM, server.base, addresses[1], home=folder, settings=settings)
    found = json.loads(output[output.rindex('{"fetch_manifests"') :])
    return {task: Loaded(**of_task) for task, of_task in found.items()}


@pytest.mark.parametrize("task", MOST_OWN)
def test_a_task_loads_little_beyond_airflow(loaded: dict[str, Loaded], task: str) -> None:
    names = loaded[task].names
    others = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert others - ALLOWED[task] == set()
    own = [name for name in names if name.startswith("registry_sync")]
    assert len(own) <= MOST_OWN[task], own


@pytest.mark.parametrize("task", MOST_MS)
def test_loading_it_takes_little_of_the_processor(loaded: dict[str, Loaded], task: str) -> None:
    assert loaded[task].milliseconds <= MOST_MS[task], loaded[task].reference_ms
