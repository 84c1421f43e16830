"""In which order the suites run, and which files one process runs because they share a running Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

#: The suites in the order in which they are run: what says most in the shortest time first.
SUITES = ("architecture", "unit", "docs", "contract", "integration", "clients", "receivers", "e2e")
#: Files whose tests share the ``airflow`` of the session: one after the other, in one process, and it stops after them.
#: The first one's tests begin with those that do without. The browser comes early: its pages show the runs of all tests
#: before, and to read and draw them costs more the more there are.
SHARING_AIRFLOW = (
    "tests/e2e/test_lookalikes.py",
    "tests/e2e/test_ui.py",
    "tests/docs/test_rest_tutorials.py",
    "tests/e2e/test_airflow_instance.py",
    "tests/e2e/test_events.py",
    "tests/e2e/test_declared_mirrors.py",
    "tests/e2e/test_fleet_groups.py",
    "tests/e2e/test_pulp_clients.py",
    "tests/e2e/test_rate_limits.py",
    "tests/e2e/test_removals.py",
    "tests/e2e/test_rest.py",
    "tests/e2e/test_run_ends.py",
    "tests/e2e/test_signed_images.py",
    "tests/e2e/test_sync_dag.py",
    "tests/e2e/test_syncs_in_groups.py",
)
#: Files whose tests share the ``composed`` of the session, likewise. The first one's read every object that there is.
SHARING_COMPOSED = (
    "tests/e2e/test_rest_fab.py",
    "tests/docs/test_docs_examples.py",
    "tests/e2e/test_compose_on_postgresql.py",
    "tests/e2e/test_request_limits.py",
)
#: What the names of tests in those files say that do without it, whom another process may run.
IN_STAGES = "in stages"
SHARED, COMPOSED = "the Airflow of the session", "the composed Airflow of the session"
#: The folder of those that share one API server, in the process of the tests.
SHARING_API_SERVER = "tests/integration/api/"
#: Files whose tests run DAGs in their process, one after the other after those of the API server: both begin with some
#: seconds of setting Airflow up in the process.
RUNNING_DAGS = (
    "tests/docs/test_docs_claims.py",
    "tests/e2e/test_dag_in_process.py",
    "tests/integration/test_dag.py",
    "tests/integration/test_fleet_dags.py",
    "tests/integration/test_notifications.py",
    "tests/integration/test_run_notes.py",
    "tests/integration/test_several_syncs.py",
    "tests/integration/test_space_and_integrity.py",
    "tests/integration/test_sync_in_one_call.py",
)
IN_PROCESS = "Airflow in the process of the tests"
#: Where several processes run tests, the longest starts first, and the short ones of integration fill up the end.
_IN_PROCESSES = (
    SHARED,
    IN_PROCESS,
    COMPOSED,
    "architecture",
    "unit",
    "e2e",
    "docs",
    "contract",
    "integration",
    "clients",
)
_IN_ONE = (*SUITES[:-1], SHARED, COMPOSED, SUITES[-1])

_AS_LISTED = {path: at for at, path in enumerate((*SHARING_AIRFLOW, *SHARING_COMPOSED, *RUNNING_DAGS), 1)}


def place(path: str, *, in_processes: bool) -> tuple[int, int]:
    """What files are sorted by; ``path`` is relative to the checkout. Within a suite the order stays."""
    sharing = shared_by(path)
    order = _IN_PROCESSES if in_processes else _IN_ONE
    if sharing in order:
        return order.index(sharing), _AS_LISTED.get(path, 0)
    return order.index(path.split("/")[1]), 0


def shared_by(path: str) -> str:
    """What a file shares with all others of which the same is said; the file itself when it shares nothing."""
    if path in SHARING_AIRFLOW:
        return SHARED
    if path in SHARING_COMPOSED:
        return COMPOSED
    return IN_PROCESS if path in RUNNING_DAGS or path.startswith(SHARING_API_SERVER) else path


class Numbered(list[str]):
    """The tests of a process. xdist asks for the place of each, and a list looks at half of all for every answer."""

    def __init__(self, tests: Sequence[str]) -> None:
        super().__init__(tests)
        self._places = {test: place for place, test in enumerate(tests)}

    def index(self, test: str, *_limits: Any) -> int:
        return self._places[test]


class SharedAirflowScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives files to processes as ``--dist loadfile`` does, in the order of the tests; those that share an Airflow, its
    API server in their process included, are one.
    """

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        super().add_node_collection(node, collection)
        if node in self.registered_collections:
            self.registered_collections[node] = Numbered(collection)

    def _split_scope(self, nodeid: str) -> str:
        path, _, test = nodeid.partition("::")
        sharing = shared_by(path)
        return f"{path} {IN_STAGES}" if sharing == SHARED and IN_STAGES in test else sharing
