"""A repository's first version from a folder: what skopeo wrote, and layouts; the next sync downloads nothing twice."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.records import PageRequest
from registry_sync.domain.references import RepositoryName
from registry_sync.domain.runs import RunState
from registry_sync.errors import RegistrySyncError
from registry_sync.sync import local_run
from support.commands import run_command
from support.filling import push
from support.image_layouts import read_index, write_index, write_layout
from support.images import ContentBuilder, RepositoryContent
from support.ready_databases import ready_database
from support.registry import RegistryServer
from support.shapes import documented_example
from support.syncing import Installation

NAME = "team/app"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The installation that commands use."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/registry_sync.db")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    return Installation.on(ready_database(tmp_path / "registry_sync.db"), tmp_path)


def skopeo(*words: str) -> None:
    done = subprocess.run(["skopeo", *words], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def imported(folder: Path, registry: RegistryServer | None = None, *words: str) -> None:
    url = "https://registry.example" if registry is None else registry.url
    run_command("repository", "import", "app", str(folder), "--url", url, "--upstream-name", NAME, *words)


def tags_of(database: Database) -> dict[str, str]:
    repository = database.repositories.by_name("app")
    return {str(name): str(digest) for name, digest in database.versions.tags(repository.id).items()}


def oci_content() -> RepositoryContent:
    build = ContentBuilder(seed=7)
    images = [build.image([build.blob(900), build.blob(50)], architecture=name) for name in ("amd64", "arm64")]
    build.tag("1.0", images[0])
    build.tag("1.1", build.index(images))
    build.tag("latest", build.index(images))
    return build.content()


def test_a_sync_after_an_import_of_a_layout_downloads_nothing(
    here: Installation, registry: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As oras, regctl and crane write one: with the registry's own bytes."""
    built = oci_content()
    push(registry, NAME, built)
    imported(write_layout(tmp_path / "layout", built), registry)
    said = capsys.readouterr()
    assert f"3 tags of a repository that it does not name, imported as {registry.netloc}/{NAME}" in said.err
    version = here.database.versions.latest(here.database.repositories.by_name("app").id)
    assert version is not None
    assert (version.number, version.summary.added) == (
        1, {"docker.tag": 3, "docker.manifest": len(built.manifests), "docker.blob": len(built.blobs)},
    )  # fmt: skip
    assert tags_of(here.database) == {name: str(digest) for name, digest in built.tags.items()}
    registry.reset_counts()
    assert here.sync("app", registry.url, NAME) is None
    log = registry.log()
    assert (log.manifest_head_count, log.manifest_get_count, log.blob_get_count) == (3, 0, 0)
    blob = next(iter(built.blobs))
    assert here.database.provenance.blob(blob).source == f"import of {tmp_path / 'layout'}"


@pytest.mark.parametrize("scoped", [(), ("--scoped",)], ids=["last", "scoped"])
def test_what_skopeo_sync_copied_of_every_platform_is_not_downloaded_again(
    here: Installation, registry: RegistryServer, tmp_path: Path, scoped: tuple[str, ...]
) -> None:
    whole = documented_example()
    built = whole.closure(["latest", *sorted(whole.tags)[:1]])
    push(registry, NAME, built)
    push(registry, "other", oci_content())
    tree = tmp_path / "tree"
    tree.mkdir()
    for repository in (NAME, "other"):
        source = ("--src=docker", "--src-tls-verify=false", f"{registry.netloc}/{repository}")
        skopeo("sync", "--all", "--dest=dir", *scoped, *source, str(tree))
    imported(tree, registry)
    assert set(tags_of(here.database)) == set(built.tags)
    registry.reset_counts()
    here.sync("app", registry.url, NAME)
    log = registry.log()
    indexes = {digest for digest in built.tags.values() if built.manifests[digest].children}
    assert log.blob_get_count == 0
    assert log.manifest_get_count <= len(indexes), "skopeo wrote indexes in its own words; images are as they were"
    assert tags_of(here.database) == {name: str(digest) for name, digest in built.tags.items()}


def test_what_skopeo_copies_into_a_layout_and_a_folder_is_read(
    here: Installation, registry: RegistryServer, tmp_path: Path
) -> None:
    built = oci_content()
    push(registry, NAME, built)
    for tag in ("1.0", "1.1"):
        copied = (
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            f"docker://{registry.netloc}/{NAME}:{tag}",
        )
        skopeo(*copied, f"oci:{tmp_path / 'layout'}:{tag}")
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.netloc}/{NAME}:1.0", f"dir:{tmp_path / 'one'}")
    imported(tmp_path / "layout", registry)
    assert tags_of(here.database) == {name: str(built.tags[name]) for name in ("1.0", "1.1")}
    run_command(
        "repository", "import", "second", str(tmp_path / "one"), "--tag", "1.0", "--url", registry.url,
        "--upstream-name", NAME,
    )  # fmt: skip
    second = here.database.repositories.by_name("second")
    assert [str(digest) for digest in here.database.versions.tags(second.id).values()] == [str(built.tags["1.0"])]


def test_an_import_is_the_first_version_and_refused_after_one(
    here: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_layout(tmp_path / "layout", oci_content())
    imported(folder)
    with pytest.raises(SystemExit) as ended:
        imported(folder)
    said = f"{ended.value}{capsys.readouterr().err}"
    assert "'app' has version 1 already, and an import makes the first one; sync it" in said
    assert len(tags_of(here.database)) == 3


def _truncated(folder: Path, digest: Any) -> None:
    file = folder / "blobs" / digest.algorithm / digest.encoded
    file.write_bytes(file.read_bytes()[:-1])


def _wrong(folder: Path, digest: Any) -> None:
    file = folder / "blobs" / digest.algorithm / digest.encoded
    file.write_bytes(bytes(len(file.read_bytes())))


def _missing(folder: Path, digest: Any) -> None:
    (folder / "blobs" / digest.algorithm / digest.encoded).unlink()


def _linked(folder: Path, digest: Any) -> None:
    file = folder / "blobs" / digest.algorithm / digest.encoded
    file.rename(folder.parent / "outside")
    file.symlink_to(folder.parent / "outside")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncated, "bytes in .*, and its descriptor says|it hashes to"),
        (_wrong, "sha256:"),
        (_missing, "lacks sha256:"),
        (_linked, "links in folders are not followed"),
    ],
)
@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_a_bad_file_costs_its_tags_alone_and_an_import_that_was_mended_continues(
    here: Installation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path, Any], None],
    said: str,
    what: str,
) -> None:
    build = ContentBuilder(seed=11)
    layers = [build.blob(1000), build.blob(2000)]
    for tag, layer in zip(("bad", "good"), layers, strict=True):
        build.tag(tag, build.image([layer]))
    built = build.content()
    folder = write_layout(tmp_path / "layout", built)
    spoil(folder, layers[0] if what == "blob" else built.tags["bad"])
    with pytest.raises(SystemExit) as ended:
        imported(folder)
    assert ended.value.code == 1
    heard = capsys.readouterr().err
    assert "bad is not imported: " in heard
    assert re.search(said, heard)
    assert set(tags_of(here.database)) == {"good"}


def test_nothing_but_bad_files_is_an_error_and_no_version(
    here: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = oci_content()
    folder = write_layout(tmp_path / "layout", built)
    for digest in built.manifests:
        _missing(folder, digest)
    with pytest.raises(SystemExit) as ended:
        imported(folder)
    assert "lacks sha256:" in f"{ended.value}{capsys.readouterr().err}"
    repository = here.database.repositories.by_name("app")
    assert repository.latest_number is None
    run = here.database.runs.page(PageRequest(limit=1)).items[0]
    assert (run.state, (run.error or "").partition(":")[0]) == (RunState.FAILED, "NothingSynced")
    imported(write_layout(tmp_path / "whole", built))
    assert len(tags_of(here.database)) == 3, "what failed is mended by another import"


def test_the_rules_of_the_remote_select_what_is_imported_and_on_demand_is_stored(
    here: Installation, tmp_path: Path
) -> None:
    built = oci_content()
    run_command(
        "remote", "create", "app", "--url", "https://registry.example", "--upstream-name", NAME,
        "--set", "include_tags=1.0", "--set", "policy=on_demand",
    )  # fmt: skip
    run_command("repository", "import", "app", str(write_layout(tmp_path / "layout", built)))
    assert set(tags_of(here.database)) == {"1.0"}
    stored = {str(digest) for digest in here.store.digests()}
    assert stored >= {str(digest) for digest in built.closure(["1.0"]).blobs}
    assert here.database.remotes.by_name("app").spec.policy.value == "on_demand"


def test_a_mirror_of_the_fleet_is_imported_as_its_file_says(
    here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mirrors.yaml").write_text(
        f"version: 1\nmirrors:\n- {{repository: app, source: registry.example/{NAME}, tags: {{exclude: [latest]}}}}\n"
    )
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", str(tmp_path / "mirrors.yaml"))
    folder = write_layout(
        tmp_path / "layout", oci_content(), {name: f"registry.example/{NAME}:{name}" for name in oci_content().tags}
    )
    first, *others = read_index(folder)
    stray = {**first, "annotations": {"org.opencontainers.image.ref.name": "registry.example/else:9"}}
    write_index(folder, [first, *others, stray])
    capsys.readouterr()
    run_command("repository", "import", "app", str(folder), "--output", "json")
    document = json.loads(capsys.readouterr().out)
    assert set(tags_of(here.database)) == {"1.0", "1.1"}
    assert document["version"]["number"] == 1
    assert here.database.remotes.by_name("app").spec.upstream_name == RepositoryName(NAME)


def test_an_import_that_is_killed_is_continued_by_the_next(
    here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_layout(tmp_path / "layout", oci_content())

    def dies(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(local_run, "commit_version", dies)
        with pytest.raises(SystemExit) as ended:
            imported(folder)
    assert ended.value.code == 130
    assert here.database.repositories.by_name("app").latest_number is None
    before = {str(digest) for digest in here.store.digests()}
    imported(folder)
    assert {str(digest) for digest in here.store.digests()} == before, "nothing is stored again"
    assert len(tags_of(here.database)) == 3
    with pytest.raises(RegistrySyncError):
        here.database.versions.get(here.database.repositories.by_name("app").id, 2)
