"""``fleet validate``, ``show`` and ``plan``: what files declare, printed for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.fleet.loading import load_fleet
from registry_sync.sync.declared_mirrors import declare as declared_records
from support.commands import Run, run_command
from support.hostile_registry import HostileRegistry
from support.serving import serve
from support.shapes import documented_example

NAME = "team/app"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with HostileRegistry() as served:
        yield serve(served, NAME, documented_example())


def declare(folder: Path, mirrors: str) -> str:
    path = folder / "mirrors.yaml"
    path.write_text(f"version: 1\ngroups: {{g: {{mode: additive}}}}\nmirrors:\n{mirrors}")
    return str(path)


def test_each_mistake_is_a_line_that_editors_can_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = declare(tmp_path, "  - {source: quay.io/a/b, owner: x}\n  - {source: quay.io/a/c, shedule: 6h}\n")
    with pytest.raises(SystemExit) as ended:
        run_fleet("validate", path)
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == (
        "mirrors.yaml:5: there is no key 'shedule': did you mean 'schedule'? (keys of your own begin with x-)\n"
    )
    assert printed.err == "1 mirror in order, 1 mirror with mistakes\n"
    with pytest.raises(SystemExit):
        run_fleet("validate", path, "--output", "json")
    assert json.loads(capsys.readouterr().out)[0]["line"] == 5


def run_fleet(*words: str) -> None:
    run_command("fleet", *words)


def test_a_mistake_that_many_mirrors_inherit_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("version: 1\ndefaults: {retries: x}\nmirrors: [{source: quay.io/a/b}, {source: quay.io/a/c}]\n")
    with pytest.raises(SystemExit):
        run_fleet("validate", str(path))
    assert capsys.readouterr().out == (
        "m.yaml:2: retries: this is 'x'; expected a number from 0 to 100 (and 1 more mirror)\n"
    )


def test_files_in_order_end_with_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_fleet("validate", declare(tmp_path, "  - {source: quay.io/a/b}\n"))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "1 mirror in order, 0 mirrors with mistakes\n")


def test_an_imported_file_is_printed_and_its_findings_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "regsync.yaml"
    entry = "{source: quay.io/a/b, target: r.io/a/b, type: repository, interval: 1h}"
    path.write_text(f"version: 1\nsync:\n- {entry}\n")
    run_fleet("import", "regsync", str(path))
    printed = capsys.readouterr()
    assert printed.out.endswith("mirrors:\n- {source: quay.io/a/b, schedule: 1h, include_referrers: false}\n")
    assert printed.err.endswith("1 mirror, 0 warnings\n")
    assert "regsync.yaml:3: note: nobody fills r.io any more" in printed.err
    output = tmp_path / "mirrors.yaml"
    run_fleet("import", str(path), "--output", str(output))
    run_fleet("validate", str(output))
    assert output.read_text() == printed.out


def test_an_import_with_losses_ends_with_status_1_and_replaces_nothing_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "skopeo.yaml", tmp_path / "mirrors.yaml"
    path.write_text("quay.io: {images: {a/b: [x]}}\n")
    output.write_text("kept")
    with pytest.raises(SystemExit, match="exists: give another file, or --force to replace it"):
        run_fleet("import", str(path), "--output", str(output))
    assert output.read_text() == "kept"
    with pytest.raises(SystemExit) as ended:
        run_fleet("import", str(path), "--output", str(output), "--force", "--names", "last")
    assert ended.value.code == 1
    assert "repository: b" in output.read_text()
    assert "1 mirror, 1 warning" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir() if "new" in entry.name] == []
    for wrong, message in ((tmp_path / "no.yaml", "cannot be read"), (output, "no keys of a known format")):
        with pytest.raises(SystemExit, match=message):
            run_fleet("import", str(wrong))
    with pytest.raises(SystemExit, match=r"exists: give another file$"):
        run_fleet("import", str(path), "--output", str(tmp_path), "--force")
    with pytest.raises(SystemExit, match="cannot be written"):
        run_fleet("import", str(path), "--output", str(tmp_path / "no" / "m.yaml"))


def test_the_setting_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="give the path of one, or set"):
        run_fleet("validate")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", declare(tmp_path, "  - {source: quay.io/a/b}\n"))
    run_fleet("validate")
    run_fleet("show", "--output", "json")
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["repository"] == "a/b"


def test_mirrors_are_shown_with_what_they_inherit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = declare(
        tmp_path,
        "  - {source: quay.io/a/b, group: g, schedule: 5h, tags: {include: [3.*]}}\n  - {repository: c, remote: hub}\n"
        "  - {source: quay.io/a/bad, x: 1}\n",
    )
    run_fleet("show", "--path", path)
    printed = capsys.readouterr()
    assert "quay.io/a/b" in printed.out
    assert "additive" in printed.out
    assert "remote hub" in printed.out
    assert "1 mistake; airflow registry-sync fleet validate shows them" in printed.err
    run_fleet("show", "a/b", "--path", path, "--output", "json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["mode"], shown["remote"]["include_tags"], shown["remote"]["download_concurrency"]) == (
        "additive", ["3.*"], 64,
    )  # fmt: skip
    run_fleet("show", "c", "--path", path)
    assert "hub" in capsys.readouterr().out
    run_fleet("show", "--group", "g", "--path", path, "--output", "yaml")
    assert capsys.readouterr().out.startswith("- repository: a/b\n")
    with pytest.raises(SystemExit, match="is of repository 'gone'"):
        run_fleet("show", "gone", "--path", path)
    with pytest.raises(SystemExit, match="in a group 'none'"):
        run_fleet("show", "--group", "none", "--path", path)


def test_a_mirror_of_a_batch_is_shown_with_the_schedule_of_its_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "version: 1\ngroups: {g: {batch: true, schedule: '5 4 * * *'}}\nmirrors: [{source: quay.io/a/b, group: g}]\n"
    )
    run_fleet("show", "a/b", "--path", str(path), "--output", "json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dag_id"], shown["schedule"]["cron"]) == ("mirrors.g", "5 4 * * *")
    run_fleet("show", "--path", str(path))
    assert "5 4 * * *" in capsys.readouterr().out


def planned(run: Run, path: str, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The plans by repository, as JSON."""
    capsys.readouterr()
    with suppress(SystemExit):
        run("fleet", "plan", "--path", path, "--output", "json", *words)
    return {plan["repository"]: plan for plan in json.loads(capsys.readouterr().out)}


@pytest.mark.slow
def test_a_plan_says_what_the_sync_then_does_and_writes_nothing(
    run: Run, database: Database, registry: HostileRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = declare(
        tmp_path,
        f"  - {{repository: app, source: {registry.base}/{NAME}, publish: app}}\n"
        f"  - {{repository: gone, source: {registry.base}/team/gone}}\n"
        f"  - {{repository: small, source: {registry.base}/{NAME}, guard: {{max_total_bytes: 5}}}}\n",
    )
    plans = planned(run, path, capsys, "--jobs", "2")
    plan = plans["app"]
    assert (plan["outcome"], plan["number"], plan["tags"]["added"], plan["error"]) == ("version", 1, 8, None)
    assert set(plan["creates"]) == {"repository", "remote", "distribution"}
    assert "gone" in plans["gone"]["error"]
    assert "LimitExceeded" in plans["small"]["error"]
    assert database.repositories.page().total_count == 0
    assert database.remotes.page().total_count == 0
    declared_records(database, load_fleet(Path(path)).mirror("app"))
    run("sync", "app", "--local", "--output", "json")
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    run("run", "show", made["run_id"], "--output", "json")
    (shown,) = json.loads(capsys.readouterr().out)
    assert plan["tags"]["added"] == made["version"]["tags"]
    counted = {"heads": "head_count", "manifests": "manifest_get_count", "blobs": "blob_get_count"}
    planned_requests = {name: plan["downloads"]["requests"][name] for name in counted}
    assert planned_requests == {name: shown["requests"][field] for name, field in counted.items()}
    assert planned(run, path, capsys, "app")["app"]["outcome"] == "unchanged"
    run("fleet", "plan", "app", "--path", path)
    assert "unchanged" in capsys.readouterr().out
