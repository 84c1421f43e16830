"""What is written down of an instance, and who uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_airflow.errors import NotRunning, PortTaken
from local_airflow.instance import Instance
from local_airflow.layout import Layout
from local_airflow.ports import free_port
from local_airflow.processes import ProcessRecord, is_alive, spawn
from local_airflow.running import RunFolder, Running

GONE = ProcessRecord(name="scheduler", pid=1, started_ticks=-1, boot_id="another boot")


def _sleeper(tmp_path: Path) -> ProcessRecord:
    return spawn("api-server", ["/bin/sleep", "60"], {}, tmp_path / "log")


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(Layout(folder=tmp_path / "local"))


def _folder(instance: Instance) -> RunFolder:
    folder = RunFolder(instance.layout.state)
    folder.folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_what_is_written_is_read_and_forgotten_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read() is None
    running = Running(port=8080, temporary=True, processes=(GONE,))
    folder.write(running)
    assert folder.read() == running
    folder.forget()
    folder.forget()
    assert folder.read() is None


def test_the_last_use_is_distinguished_from_one_among_others(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.use() as one:
        with folder.use():
            assert not folder.is_last_use(one)
        assert folder.is_last_use(one)


def test_an_instance_of_which_a_part_has_ended_does_not_run(instance: Instance) -> None:
    _folder(instance).write(Running(port=8080, temporary=False, processes=(GONE,)))
    assert instance.running() is None
    with pytest.raises(NotRunning, match="make up"):
        instance.require_running()


def test_what_runs_is_kept_by_a_second_start_and_becomes_lasting(instance: Instance, tmp_path: Path) -> None:
    running = Running(port=free_port(), temporary=True, processes=(_sleeper(tmp_path),))
    _folder(instance).write(running)
    try:
        assert instance.start(temporary=True) == running
        assert instance.start().temporary is False
        assert instance.start(temporary=True).temporary is False
        with pytest.raises(PortTaken, match="runs at"):
            instance.start(port=free_port())
    finally:
        instance.stop(grace_seconds=5)
    assert instance.running() is None


def test_a_temporary_instance_ends_with_its_last_use(instance: Instance, tmp_path: Path) -> None:
    sleeper = _sleeper(tmp_path)
    with instance.in_use():
        _folder(instance).write(Running(port=1, temporary=True, processes=(sleeper,)))
        with instance.in_use():
            assert is_alive(sleeper)
        assert is_alive(sleeper)
    assert not is_alive(sleeper)
    assert instance.recorded() is None


def test_a_lasting_instance_outlives_its_uses(instance: Instance, tmp_path: Path) -> None:
    sleeper = _sleeper(tmp_path)
    with instance.in_use():
        _folder(instance).write(Running(port=1, temporary=False, processes=(sleeper,)))
    assert is_alive(sleeper)
    assert instance.stop(grace_seconds=5)
    assert not instance.stop(grace_seconds=5)
