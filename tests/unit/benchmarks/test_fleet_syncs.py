"""The table of a fleet's syncs beside another program's."""

from __future__ import annotations

import yaml
from benchmarks.fleet_syncs import CONNECTIONS, FleetPass, _Regsync, table


def test_each_pass_has_a_line_and_ours_as_a_multiple_of_theirs() -> None:
    passes = [
        FleetPass("registry-sync", "unchanged", 3.0, 2.5, 4, 400, 440, 250.0),
        FleetPass("regsync", "unchanged", 2.0, 1.5, 0, 400, 440, 76.0),
        FleetPass("registry-sync", "first", 9.0, 6.5, 4, 400, 1320, 250.0),
    ]
    lines = table(passes).splitlines()
    assert (
        " ".join(lines[0].split()) == "unchanged registry-sync 3.0 s 2.5 CPU-s 4 tasks 400 HEADs 440 requests 250 MiB"
    )
    assert lines[3:] == ["unchanged  registry-sync / regsync: 1.50"]


def test_regsync_is_given_each_repository_and_as_many_connections(tmp_path) -> None:  # type: ignore[no-untyped-def]
    _Regsync("r.example:5000", ["team/app"], tmp_path / "regsync")
    config = yaml.safe_load((tmp_path / "regsync/regsync.yml").read_text())
    assert config["sync"][0]["source"] == "r.example:5000/team/app"
    assert config["creds"][0]["reqConcurrent"] == config["defaults"]["parallel"] == CONNECTIONS
