"""Commands that measure, collect, reclaim, verify and repair content, on a real blob store and registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.hooks.stores import open_blob_store
from support.commands import Run
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.registry import RegistryServer
from support.syncing import Installation

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def content() -> RepositoryContent:
    """Tags ``a`` and ``b``, each on an image with a layer of its own."""
    build = ContentBuilder(seed=21)
    for name, size in (("a", 3000), ("b", 70_000)):
        build.tag(name, build.image([build.blob(size)]))
    return build.content()


@pytest.fixture
def registry(tmp_path: Path, content: RepositoryContent) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        push(server, "team/app", content)
        yield server


@pytest.fixture
def here(tmp_path: Path, database: Database, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """What the commands work on, with ``app`` synced."""
    blobs = (tmp_path / "blobs").as_uri()
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", blobs)
    here = Installation(database, open_blob_store(blobs))
    here.sync("app", registry.url, "team/app")
    return here


def printed(capsys: Printed) -> Any:
    return json.loads(capsys.readouterr().out)


def layer(content: RepositoryContent, tag: str) -> Digest:
    return content.manifests[content.tags[tag]].blobs[1]


def test_usage_counts_what_the_store_has(
    run: Run, here: Installation, content: RepositoryContent, capsys: Printed
) -> None:
    run("usage", "-o", "json")
    shown = printed(capsys)
    assert shown["total"]["stored_bytes"] == content.blob_bytes
    (row,) = shown["repositories"]
    assert (row["repository"], row["stored_bytes"], row["own_bytes"]) == ("app", content.blob_bytes, content.blob_bytes)
    run("usage")
    out = capsys.readouterr().out
    assert "KiB" in out
    assert str(content.blob_bytes) not in out


@pytest.mark.slow
def test_a_collection_shows_and_asks_before_it_deletes(
    run: Run, here: Installation, content: RepositoryContent, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.database.repositories.delete(here.database.repositories.by_name("app").id)
    run("gc", "-o", "json", "--yes")
    assert printed(capsys)["waiting_manifests"] == 2
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    with pytest.raises(SystemExit, match="nothing was done"):
        run("gc", "--grace-hours", "0")
    run("gc", "--dry-run", "--grace-hours", "0", "-o", "json")
    preview = printed(capsys)
    assert (preview["is_dry_run"], preview["manifests"]) == (True, 2)
    assert here.store.has(layer(content, "a"))
    freed = 0
    for _ in range(3):
        run("gc", "--yes", "--grace-hours", "0", "-o", "json")
        freed += printed(capsys)["freed_bytes"]
    assert freed == content.blob_bytes
    assert not here.store.has(layer(content, "a"))


def test_bytes_are_reclaimed_after_a_yes_and_kept_versions_keep_theirs(
    run: Run, here: Installation, content: RepositoryContent, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    with pytest.raises(SystemExit, match="nothing was done"):
        run("reclaim", "app")
    run("reclaim", "app", "--keep", "app:1", "-o", "json", "--yes")
    assert printed(capsys)["freed_bytes"] == 0
    run("reclaim", "app", "--keep", "app", "-o", "json", "--dry-run")
    assert printed(capsys) == {"is_dry_run": True, "blobs": 0, "freed_bytes": 0}
    assert here.store.has(layer(content, "a"))
    run("reclaim", "app", "-o", "json", "--yes")
    assert printed(capsys) == {"is_dry_run": False, "blobs": 4, "freed_bytes": content.blob_bytes}
    assert not here.store.has(layer(content, "a"))
    assert here.database.versions.missing_blob_count(here.database.repositories.by_name("app").id) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reclaim", "nowhere"), "there is no repository 'nowhere'"),
        (("reclaim", "app", "--keep", "app:7"), "there is no version 7"),
        (("reclaim", "app", "--keep", "app:x"), "use NAME:NUMBER"),
        (("verify", "--share", "2"), "give a number from 0 to 1"),
        (("verify", "--mib-per-second", "0"), "more than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, here: Installation, content: RepositoryContent, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        run(*words)
    assert here.store.has(layer(content, "a"))


def test_a_clean_store_is_verified_with_status_0(
    run: Run, here: Installation, content: RepositoryContent, capsys: Printed
) -> None:
    run("verify", "-o", "json")
    shown = printed(capsys)
    assert (shown["verified_bytes"], shown["broken"], shown["findings"]) == (content.blob_bytes, 0, [])


def test_what_is_broken_and_missing_is_reported_and_repaired(
    run: Run, here: Installation, content: RepositoryContent, tmp_path: Path, capsys: Printed
) -> None:
    files = {digest: next((tmp_path / "blobs").rglob(digest.encoded)) for digest in content.blobs}
    broken, gone = layer(content, "a"), layer(content, "b")
    files[broken].chmod(0o644)
    files[broken].write_bytes(b"x" * content.blobs[broken].size_bytes)
    files[gone].unlink()
    with pytest.raises(SystemExit, match="2 blobs cannot be served"):
        run("verify", "-o", "json")
    shown = printed(capsys)
    assert (shown["broken"], shown["missing"], shown["repaired_blobs"]) == (1, 1, None)
    assert {finding["name"] for finding in shown["findings"]} == {broken, gone}


@pytest.mark.slow
def test_what_was_found_broken_is_reported_and_repaired_by_the_next_verification(
    run: Run, here: Installation, content: RepositoryContent, tmp_path: Path, capsys: Printed
) -> None:
    broken = layer(content, "a")
    file = next((tmp_path / "blobs").rglob(broken.encoded))
    file.chmod(0o644)
    file.write_bytes(b"x" * content.blobs[broken].size_bytes)
    for _ in range(2):
        with pytest.raises(SystemExit, match="1 blob cannot be served"):
            run("verify", "-o", "json")
        shown = printed(capsys)
        assert (shown["broken"], [finding["name"] for finding in shown["findings"]]) == (1, [broken])
    run("usage", "-o", "json")
    usage = printed(capsys)
    assert (usage["total"]["broken_blobs"], usage["repositories"][0]["broken_blobs"]) == (1, 1)
    run("content", "show", broken, "-o", "json")
    assert printed(capsys)["fault"] == "broken"
    run("verify", "--repair", "-o", "json")
    assert printed(capsys)["repaired_blobs"] == 1
    run("verify", "-o", "json")
    assert printed(capsys)["findings"] == []
    assert here.store.has(broken)


def test_what_was_recorded_as_missing_before_losses_were_remembered_is_repaired(
    run: Run, here: Installation, content: RepositoryContent, capsys: Printed
) -> None:
    lost = layer(content, "b")
    here.store.delete(lost)
    here.database.contents.mark_missing([lost])
    run("verify", "--repair", "-o", "json")
    assert printed(capsys)["repaired_blobs"] == 1
    assert here.store.has(lost)


@pytest.mark.parametrize("command", [("gc", "--grace-hours", "0"), ("reclaim", "app")])
def test_what_cannot_be_removed_is_reported_with_status_1_and_the_rest_goes(
    run: Run, here: Installation, content: RepositoryContent, tmp_path: Path, capsys: Printed, command: tuple[str, ...]
) -> None:
    stuck = layer(content, "b")
    if command[0] == "gc":
        here.database.repositories.delete(here.database.repositories.by_name("app").id)
        for _ in range(2):
            run("gc", "--yes", "--grace-hours", "0")
    file = next((tmp_path / "blobs").rglob(stuck.encoded))
    file.unlink()
    file.mkdir()
    with pytest.raises(SystemExit, match=f"1 could not be removed, .*{stuck}"):
        run(*command, "--yes")
    assert list(here.store.digests()) == []


def test_a_repair_fetches_again_what_a_verification_lost(
    run: Run, here: Installation, content: RepositoryContent, tmp_path: Path, capsys: Printed
) -> None:
    lost = layer(content, "b")
    next((tmp_path / "blobs").rglob(lost.encoded)).unlink()
    run("verify", "--share", "0", "--repair", "-o", "json")
    shown = printed(capsys)
    assert (shown["missing"], shown["repaired_blobs"], shown["failures"]) == (1, 1, [])
    assert here.store.has(lost)


def test_what_cannot_be_repaired_is_reported_with_its_reason(
    run: Run,
    here: Installation,
    content: RepositoryContent,
    registry: RegistryServer,
    tmp_path: Path,
    capsys: Printed,
) -> None:
    lost = layer(content, "b")
    next((tmp_path / "blobs").rglob(lost.encoded)).unlink()
    registry.delete_blob("team/app", lost)
    with pytest.raises(SystemExit, match="1 blob cannot be served"):
        run("verify", "--share", "0", "--repair", "-o", "json")
    (failure,) = printed(capsys)["failures"]
    assert failure["digest"] == lost
    assert "NotFound" in failure["why"]
    with pytest.raises(SystemExit, match="1 blob cannot be served"):
        run("verify", "--share", "0", "--repair", "-o", "plain")
    out = capsys.readouterr().out
    assert "verified_blobs" in out
    assert failure["why"] in " ".join(out.split())
