"""The table of a fleet's syncs beside another program's."""

from __future__ import annotations

from dataclasses import replace

import yaml
from benchmarks.fleet_syncs import (
    CHUNKS,
    CONNECTIONS,
    EMPTY,
    OTHER,
    OWN,
    FleetPass,
    _dag,
    _reached,
    _Regsync,
    as_json,
    comparisons,
    medians,
    table,
)


def _passes() -> list[FleetPass]:
    return [
        FleetPass("empty tasks", "unchanged", 1.5, 0.5, 4, 0, 0, 220.0, 1.0),
        FleetPass("registry-sync", "unchanged", 3.0, 2.5, 4, 400, 440, 250.0, 1.25),
        FleetPass("regsync", "unchanged", 2.0, 1.5, 0, 400, 440, 76.0),
        FleetPass("registry-sync", "first", 9.0, 6.5, 4, 400, 1320, 250.0, 1.0),
    ]


def test_each_pass_has_a_line_and_one_beside_the_other_program_and_airflow_itself() -> None:
    lines = table(_passes()).splitlines()
    assert " ".join(lines[1].split()) == (
        "unchanged registry-sync 3.0 s 2.5 CPU-s 4 tasks 400 HEADs 440 requests 250 MiB 1.25 s until the first task"
    )
    assert "until" not in lines[2]
    assert "\n".join(lines[4:]) == (
        "unchanged  registry-sync / regsync: 1.50; no longer than regsync (2.0 s) and empty tasks (1.5 s) together; "
        "without these 1.33 times as fast"
    )


def test_a_pass_is_judged_by_what_it_takes_beyond_the_other_program_and_airflow_itself() -> None:
    [found] = comparisons(_passes())
    assert (found.which, found.beyond_seconds, found.ratio) == ("unchanged", -0.5, 2.0 / 1.5)
    [longer] = comparisons([replace(one, seconds=one.seconds * 2) for one in _passes()[:2]] + _passes()[2:])
    assert longer.beyond_seconds == 1.0
    assert "1.0 s longer than" in str(longer)


def test_what_was_measured_of_one_registry_is_a_document() -> None:
    document = as_json(_passes(), 40, lists_digests=False, network="20ms")
    assert (document["mirror_count"], document["registry"], document["network"]) == (40, "docker-registry", "20ms")
    assert [FleetPass(**one) for one in document["passes"]] == _passes()
    assert [one["beyond_seconds"] for one in document["comparisons"]] == [-0.5]


def test_a_pass_that_was_made_several_times_has_the_medians_of_what_was_measured() -> None:
    [empty, own, *_] = _passes()
    passes = [empty, own, replace(own, seconds=9.0, head_count=401), replace(own, seconds=4.0, head_count=401)]
    assert medians(passes) == [empty, replace(own, seconds=4.0, head_count=401)]


def test_each_contender_has_a_link_of_its_own() -> None:
    said: list[str] = []
    with _reached("127.0.0.1:5000", "loopback", said.append) as reached:
        assert reached == {OWN: "127.0.0.1:5000", OTHER: "127.0.0.1:5000"}
    with _reached("127.0.0.1:5000", "20ms", said.append) as reached:
        assert len({"127.0.0.1:5000", *reached.values()}) == 3
    assert [line.partition(",")[0] for line in said] == [f"{name}: 0 connections" for name in (OWN, OTHER)]


def test_the_dags_differ_in_their_bodies_alone() -> None:
    own, empty = _dag(OWN), _dag(EMPTY)
    assert own.replace("if True", "if False").replace("benchmark_fleet", "benchmark_empty_tasks") == empty != own
    compile(own, "dag", "exec")


def test_regsync_is_given_each_repository_and_as_many_connections(tmp_path) -> None:  # type: ignore[no-untyped-def]
    _Regsync("r.example:5000", ["team/app"], tmp_path / "regsync")
    config = yaml.safe_load((tmp_path / "regsync/regsync.yml").read_text())
    assert config["sync"][0]["source"] == "r.example:5000/team/app"
    assert config["creds"][0]["reqConcurrent"] == config["defaults"]["parallel"] == CONNECTIONS
    assert f"concurrency={CONNECTIONS // CHUNKS}," in _dag(OWN)
