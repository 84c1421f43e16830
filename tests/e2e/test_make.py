"""What the commands of the Makefile give the person who types them, in a fresh copy of the project."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_airflow import processes
from local_airflow.instance import Instance
from local_airflow.layout import Layout
from local_airflow.ports import free_port
from local_airflow.running import RunFolder, Running
from local_airflow.startup import COMMANDS
from support.airflow_instance import SPARING
from support.composed import DOCKER_HUB
from support.documents import code_blocks
from support.make import Clone
from support.registry import RegistryServer

TUTORIAL = "tutorial/first-sync.md"
_HEADER = "content         | added"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A copy in which Airflow is started once and used by the tests in their order; stopped at the end.

    Its scheduler looks for work as rarely as those of other tests: to look ten times a second takes a sixth of a core.
    """
    copy = Clone(tmp_path_factory.mktemp("clone"))
    settings = copy.folder / "tools" / "local_airflow" / "settings.py"
    text, option = settings.read_text(), '"scheduler_idle_sleep_time": "{}"'
    assert text.count(option.format("0.1")) == 1
    rarely = SPARING["scheduler"]["scheduler_idle_sleep_time"]
    settings.write_text(text.replace(option.format("0.1"), option.format(rarely)))
    yield copy
    copy.make("down")


@pytest.fixture(scope="module")
def running(clone: Clone) -> str:
    """The address of the Airflow that ``make up`` started."""
    done = clone.make("up", PORT=free_port(), PULL_PORT=free_port())
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def _instance(clone: Clone) -> Instance:
    return Instance(Layout(folder=clone.folder / ".local"))


def _pulled_from(clone: Clone) -> str:
    recorded = _instance(clone).recorded()
    assert recorded is not None
    return f"127.0.0.1:{recorded.pull_port}"


def _run(shell: subprocess.Popen[str], block: str) -> str:
    """What a block prints, on either stream, when all of it succeeds."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{block}\necho {shlex.quote('-- done --')}\n")
    shell.stdin.flush()
    printed = []
    for line in shell.stdout:
        if line == "-- done --\n":
            return "".join(printed)
        printed.append(line)
    raise AssertionError("".join(printed))


def _words(text: str) -> list[list[str]]:
    """The words of each line, blank ones left out: how wide columns are does not matter."""
    return [line.split() for line in text.splitlines() if line.strip()]


def _counts(stdout: str) -> dict[str, int]:
    return {kind: entry["count"] for kind, entry in json.loads(stdout)["content_summary"]["present"].items()}


def test_make_alone_lists_what_there_is(clone: Clone) -> None:
    told = clone.make().stdout
    for target in ("sync", "up", "down", "token", "status", "test", "check", "bench", "lock", "clean"):
        assert f"make {target} " in told


def test_without_an_instance_the_message_says_how_to_start_one(clone: Clone) -> None:
    for target in ("status", "token"):
        done = clone.make(target)
        assert done.returncode != 0
        assert "make up" in done.stderr


def test_a_taken_port_is_named_and_another_suggested(clone: Clone) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = clone.make("up", PORT=port)
    assert done.returncode != 0
    assert f"Port {port} is taken" in done.stderr
    assert "PORT=" in done.stderr
    assert _instance(clone).recorded() is None


def test_a_part_that_ended_is_named_and_up_starts_all_of_them_anew(
    clone: Clone, request: pytest.FixtureRequest
) -> None:
    """Programs that do nothing stand for the parts of an Airflow: what was left of them is stopped."""
    layout = _instance(clone).layout
    left = Running(free_port(), temporary=False)
    for part in COMMANDS:
        idle = processes.spawn(part, ["/bin/sleep", "600"], os.environ, layout.process_logs / part)
        left = left.with_process(idle)
    RunFolder(layout.state).write(left)
    ended = next(record for record in left.processes if record.name == "scheduler")
    processes.stop([ended], grace_seconds=0)
    assert left.ended() == ["scheduler"]
    done = clone.make("status")
    assert done.returncode != 0
    assert f"Of the Airflow at {left.url} these have ended: scheduler. Run: make up" in done.stderr
    url = request.getfixturevalue("running")
    assert left.ended() == list(COMMANDS)
    recorded = _instance(clone).require_running()
    assert recorded.url == url != left.url
    assert set(COMMANDS) < {record.name for record in recorded.processes}


def test_up_says_where_and_a_second_up_the_same(clone: Clone, running: str) -> None:
    again = clone.make("up")
    assert again.stdout.split()[0] == running
    assert f"password: {_instance(clone).password()}" in again.stdout
    assert f"http://{_pulled_from(clone)} serves to container clients" in again.stdout


def test_status_reports_every_part(clone: Clone, running: str) -> None:
    told = clone.make("status").stdout
    assert running in told
    assert told.count(": healthy") == 5


def test_the_token_opens_the_rest_api(clone: Clone, running: str) -> None:
    token = clone.make("token").stdout.strip()
    request = urllib.request.Request(f"{running}/api/v2/dags", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as response:
        found = {dag["dag_id"] for dag in json.load(response)["dags"]}
    # Without a file of mirrors, the file for their DAGs makes none.
    assert found == {path.stem for path in (clone.folder / "dags").glob("*.py")} - {"registry_sync_fleet"}


def test_where_docker_hub_is_out_of_reach_a_sample_is_synced_and_named(clone: Clone, running: str) -> None:
    assert running
    command = clone.folder / "tools" / "local_airflow" / "sync_command.py"
    text = command.read_text()
    assert text.count(f'"{DOCKER_HUB}"') == 1
    command.write_text(text.replace(DOCKER_HUB, "https://127.0.0.1:1"))  # where nobody listens
    first, second = (clone.make("sync") for _ in range(2))
    command.write_text(text)
    assert first.returncode == 0, first.stderr
    assert _counts(first.stdout) == {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    assert "Docker Hub is out of reach: connection refused" in first.stderr
    assert "it does not come from Docker Hub" in first.stderr
    assert "into the repository sample/hello-world" in first.stderr
    assert f"docker pull {_pulled_from(clone)}/sample/hello-world:latest\n" in first.stderr
    assert json.loads(second.stdout) == json.loads(first.stdout)
    sample = json.loads(first.stdout)["sample"]
    assert (sample["upstream_name"], sample["reason"]) == ("sample/hello-world", "connection refused")
    assert f"This is the sample from {sample['url']}" in first.stderr


def test_an_unchanged_upstream_gives_the_same_version_again(
    clone: Clone, running: str, upstream: RegistryServer
) -> None:
    first, second = (clone.make("sync", REMOTE=upstream.url, REPOSITORY="unchanged") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert _counts(first.stdout) == {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    assert json.loads(second.stdout) == json.loads(first.stdout)
    assert "Nothing changed" in second.stderr
    assert clone.make("status").stdout.startswith(running)
    assert f"docker pull {_pulled_from(clone)}/unchanged:latest" in second.stderr


def test_up_prints_a_pull_that_works(clone: Clone, running: str, tmp_path: Path) -> None:
    assert running
    command = clone.make("up").stdout.splitlines()[1]
    image = command.removeprefix("docker pull ")
    assert image == f"{_pulled_from(clone)}/sample/hello-world:latest"
    copy = ["skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{image}", f"dir:{tmp_path / 'pulled'}"]
    subprocess.run(copy, check=True, capture_output=True)
    assert len(list((tmp_path / "pulled").glob("*.manifest.json"))) == 12


def test_the_variables_choose_what_is_synced(clone: Clone, running: str, upstream: RegistryServer) -> None:
    assert running
    done = clone.make("sync", REMOTE=upstream.url, REPOSITORY="few", TAGS="v1 v2", POLICY="on_demand", MODE="additive")
    assert done.returncode == 0, done.stderr
    assert _counts(done.stdout)["docker.tag"] == 2


def test_a_failed_sync_names_task_reason_and_log(clone: Clone, running: str, upstream: RegistryServer) -> None:
    assert running
    done = clone.make("sync", REMOTE=upstream.url, NAME="library/absent")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "the task list_tags failed: NotFound:" in done.stderr
    log = done.stderr.partition("its log: ")[2].splitlines()[0]
    assert "library/absent" in Path(log).read_text()


def test_parameters_that_do_not_fit_fail_before_anything_runs(
    clone: Clone, running: str, upstream: RegistryServer
) -> None:
    assert running
    done = clone.make("sync", REMOTE=upstream.url, MODE="sideways")
    assert done.returncode != 0
    assert "sideways" in done.stderr


def test_a_sync_in_a_second_checkout_starts_an_airflow_of_its_own_and_leaves_none_behind(
    running: str, upstream: RegistryServer, tmp_path: Path, airflow_database: Path
) -> None:
    beside = Clone(tmp_path)
    shutil.copytree(airflow_database, tmp_path / ".local" / "airflow")  # the first checkout has shown the migration
    done = beside.make("sync", REMOTE=upstream.url)
    assert done.returncode == 0, done.stderr
    assert _counts(done.stdout) == {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    assert json.loads(done.stdout)["number"] == 1
    assert running not in done.stderr
    assert _instance(beside).recorded() is None


@pytest.fixture
def shell(clone: Clone, running: str, upstream: RegistryServer) -> Iterator[subprocess.Popen[str]]:
    """A shell in the copy of the project, whose environment is the one that runs the tests and needs no set-up.

    The registry of the test stands for Docker Hub by the variable that ``make sync`` reads.
    """
    (clone.folder / ".local" / "venv").symlink_to(sys.prefix)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MAKE", "PYTHON"))}
    port = running.rpartition(":")[2]
    process = subprocess.Popen(
        ["bash", "-eu"],
        cwd=clone.folder,
        env={
            **kept,
            "MAKEFLAGS": f"VENV={sys.prefix}",
            "REMOTE": upstream.url,
            "PORT": port,
            "PULL_PORT": _pulled_from(clone).rpartition(":")[2],
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield process
        process.kill()


def test_the_commands_of_the_first_tutorial_give_what_it_shows(
    clone: Clone, running: str, shell: subprocess.Popen[str]
) -> None:
    """Tables word for word; the tasks of the unchanged sync by their states; three versions at the end.

    Its ``make up`` finds the Airflow that runs, and its ``make down`` stops it.
    """
    was_up = False
    printed, tables, unchanged, versions = "", 0, "", ""
    for block in code_blocks(TUTORIAL):
        if block.language == "bash":
            printed = _run(shell, block.text)
            if block.text.strip() == "make up":
                assert running in [line[0] for line in _words(printed)]
                assert clone.make("status").returncode == 0
                was_up = True
            versions = printed if "version list" in block.text else versions
        elif _HEADER in block.text:
            shown = _words(block.text)
            at = _words(printed).index(shown[0])
            assert _words(printed)[at : at + len(shown)] == shown
            tables += 1
        elif "Nothing changed" in block.text:
            unchanged = printed
            assert "Nothing changed upstream: no new version" in unchanged
            for task in ("fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"):
                assert [task, "skipped"] in _words(unchanged)
    assert was_up
    assert tables == 2
    assert unchanged
    numbers = [row for row in _words(versions) if row[0].isdecimal()]
    # The tags are the first number after the origin and whoever started the sync.
    tags = {row[0]: next(filter(str.isdecimal, row[row.index("sync") :])) for row in numbers}
    assert list(tags.items()) == [("3", "4"), ("2", "8"), ("1", "2")]
    assert "Airflow is stopped" in printed


def test_down_again_says_that_nothing_ran(clone: Clone, running: str) -> None:
    assert running
    again = clone.make("down")
    assert again.returncode == 0
    assert "No Airflow ran" in again.stderr


def test_an_interrupted_sync_leaves_nothing_running(clone: Clone, upstream: RegistryServer) -> None:
    with clone.start("sync", REMOTE=upstream.url, REPOSITORY="interrupted") as command:
        assert command.stderr is not None
        while "Starting" not in command.stderr.readline():
            pass
        recorded = None
        while recorded is None or not recorded.processes:
            time.sleep(0.01)
            recorded = _instance(clone).recorded()
        os.killpg(command.pid, signal.SIGINT)
        _, told = command.communicate(timeout=60)
    assert command.returncode != 0
    assert "Interrupted" in told
    assert _instance(clone).recorded() is None
    assert len(recorded.ended()) == len(recorded.processes)


def test_clean_removes_everything(clone: Clone) -> None:
    assert (clone.folder / ".local").exists()
    assert clone.make("clean").returncode == 0
    assert not (clone.folder / ".local").exists()
