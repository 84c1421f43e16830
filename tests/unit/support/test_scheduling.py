"""The order of the suites, and what one process runs as one."""

from __future__ import annotations

from functools import partial

import pytest

from support.scheduling import (
    RUNNING_DAGS,
    SHARING_AIRFLOW,
    SHARING_COMPOSED,
    Numbered,
    SharedAirflowScheduling,
    place,
    shared_by,
)

SHARING = {"airflow": SHARING_AIRFLOW, "composed": SHARING_COMPOSED}
#: What files share by the fixture that their tests take.
LISTED = {**SHARING, "sync_in_process": RUNNING_DAGS}


@pytest.mark.parametrize("fixture", LISTED)
def test_every_test_that_takes_a_shared_airflow_is_in_a_file_that_shares_it(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    """Of the tests of this run: one that is not would keep it running until the end, or find it stopped; or set up
    Airflow in one more process.
    """
    root = request.config.rootpath
    taking = [item for item in request.session.items if fixture in getattr(item, "fixturenames", ())]
    assert {item.path.relative_to(root).as_posix() for item in taking} <= set(LISTED[fixture])


@pytest.mark.parametrize("files", LISTED.values(), ids=LISTED)
def test_the_files_that_share_one_exist(request: pytest.FixtureRequest, files: tuple[str, ...]) -> None:
    assert [path for path in files if not (request.config.rootpath / path).is_file()] == []


@pytest.mark.parametrize("files", SHARING.values(), ids=SHARING)
@pytest.mark.parametrize("in_processes", [False, True])
def test_files_that_share_one_stand_side_by_side(in_processes: bool, files: tuple[str, ...]) -> None:
    others = ["tests/unit/a.py", "tests/docs/b.py", "tests/e2e/test_make.py", "tests/integration/c.py"]
    everything = [*others, *SHARING_AIRFLOW, *SHARING_COMPOSED]
    ordered = sorted(everything, key=lambda path: place(path, in_processes=in_processes))
    shared = [path in files for path in ordered]
    first = shared.index(True)
    assert all(shared[first : first + len(files)])


def test_one_process_runs_all_that_share_something() -> None:
    assert len({shared_by(path) for path in SHARING_AIRFLOW}) == 1
    assert len({shared_by(path) for path in SHARING_COMPOSED}) == 1
    assert len({shared_by(path) for path in (*SHARING_AIRFLOW, *SHARING_COMPOSED)}) == len(SHARING)
    in_process = ["tests/integration/api/test_a.py", "tests/integration/api/test_b.py", *RUNNING_DAGS]
    assert len({shared_by(path) for path in in_process}) == 1
    assert sorted(in_process, key=lambda path: place(path, in_processes=True)) == in_process
    assert shared_by("tests/integration/test_a.py") != shared_by("tests/integration/test_b.py")


def test_another_process_may_run_what_does_without_the_airflow_that_its_file_shares() -> None:
    scope = partial(SharedAirflowScheduling._split_scope, None)
    path = SHARING_AIRFLOW[0]
    assert scope(f"{path}::test[quay in stages]") == scope(f"{path}::test[ecr in stages]") != scope(f"{path}::test")
    assert scope(f"{path}::test[scheduled]") == scope(f"{SHARING_AIRFLOW[1]}::test") == shared_by(path)
    assert scope(f"{RUNNING_DAGS[0]}::test[in stages]") == shared_by(RUNNING_DAGS[0])


def test_one_process_starts_with_what_says_most_in_the_shortest_time() -> None:
    paths = ["tests/e2e/a.py", "tests/contract/db/a.py", "tests/unit/a.py", "tests/architecture/a.py"]
    assert sorted(paths, key=lambda path: place(path, in_processes=False)) == paths[::-1]


def test_several_processes_start_with_what_takes_longest() -> None:
    paths = ["tests/integration/a.py", "tests/unit/a.py", "tests/integration/api/a.py", SHARING_AIRFLOW[0]]
    assert sorted(paths, key=lambda path: place(path, in_processes=True)) == paths[::-1]


def test_the_place_of_a_test_is_the_one_in_the_list_of_its_process() -> None:
    tests = [f"tests/unit/a.py::test[{number}]" for number in range(5)]
    numbered = Numbered(tests)
    assert numbered == tests
    assert [numbered.index(test) for test in tests] == [0, 1, 2, 3, 4]
