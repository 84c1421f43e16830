"""What our syncs are compared with does the whole work: otherwise the comparison would flatter or slander."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from benchmarks import blob_store
from benchmarks.results import SyncResults, TookTooLong, Usage
from benchmarks.syncs.bare_loop import BareLoop
from benchmarks.syncs.commands import PROGRAMS
from benchmarks.syncs.contender import FIRST, MOVED, UNCHANGED, Source
from benchmarks.syncs.in_process import Bare, Stages, run_stages
from benchmarks.syncs.measuring import Selection, _without_airflow, measure
from benchmarks.syncs.outcome import check_blobs
from benchmarks.syncs.own_storage import check_installation
from benchmarks.syncs.upstreams import DIGESTS, LOOPBACK, NETWORKS, REDIRECTS, Registry, moved_tag, with_moved_tag

from registry_sync.domain.media_types import OCI_INDEX, OCI_MANIFEST
from support import shapes
from support.images import RepositoryContent
from support.syncing import Installation

NAME = "some/name"


@pytest.fixture(scope="module")
def content() -> RepositoryContent:
    return shapes.documented_example()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, content: RepositoryContent) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("upstream")) as registry:
        registry.place(NAME, content)
        yield registry


@pytest.fixture
def source(registry: Registry) -> Source:
    return Source(registry.server.url, NAME)


def test_the_bare_loop_fetches_everything_once_and_again_only_requests_the_tags(
    registry: Registry, content: RepositoryContent, source: Source, tmp_path: Path
) -> None:
    registry.server.reset_counts()
    loop = BareLoop(source, tmp_path)
    loop.first()
    reached, log = content.closure(content.tags), registry.server.log()
    assert log.manifest_head_count == len(content.tags)
    assert log.manifest_get_count == len(reached.manifests)
    registry.server.reset_counts()
    loop.unchanged()
    assert registry.server.log().counts == {("GET", "tags"): 1, ("HEAD", "manifest"): len(content.tags)}
    check_blobs(tmp_path, reached.blobs)
    assert {path.name for path in tmp_path.iterdir()} == {digest.encoded for digest in reached.blobs}


@pytest.mark.parametrize("network", NETWORKS)
def test_stages_and_the_bare_loop_sync_over_every_network(
    registry: Registry, content: RepositoryContent, tmp_path: Path, network: str
) -> None:
    for folder in ("stages", "bare"):
        (tmp_path / folder).mkdir()
    with registry.reached(network) as upstream:
        upstream.refresh(NAME)
        upstream.forget()
        run_stages(upstream.source(NAME), tmp_path / "stages")()
        counts = upstream.counts()
        if network != DIGESTS:  # which asks for tokens
            BareLoop(upstream.source(NAME), tmp_path / "bare").first()
    reached = content.closure(content.tags)
    assert counts["GET blob"] == len(reached.blobs)
    assert counts.get("GET elsewhere", 0) == (len(reached.blobs) if network == REDIRECTS else 0)
    if network != DIGESTS:
        check_blobs(tmp_path / "bare", reached.blobs)
    here = Installation.embedded(tmp_path / "stages")
    check_installation(here.database, tmp_path / "stages/blobs", NAME, content)
    here.database.close()


def test_stages_in_an_interpreter_of_their_own_say_what_they_take(
    content: RepositoryContent, source: Source, tmp_path: Path
) -> None:
    stages = Stages(source, tmp_path / "stages")
    stages.empty()
    usage = stages.sync(FIRST, 120)
    assert usage.cpu_seconds is not None
    assert 0 < usage.cpu_seconds < usage.seconds * 4
    assert usage.peak_mib is not None
    assert usage.peak_mib > 20
    stages.check(content)
    with pytest.raises(RuntimeError, match="not as"):
        stages.check(with_moved_tag(content))


def test_one_that_takes_too_long_is_ended(source: Source, tmp_path: Path) -> None:
    loop = Bare(source, tmp_path / "bare")
    loop.empty()
    with pytest.raises(TookTooLong, match="over 0 s"):
        loop.sync(UNCHANGED, 0.05)


def test_skopeo_copies_every_blob_and_says_why_it_cannot(
    registry: Registry, content: RepositoryContent, source: Source, tmp_path: Path
) -> None:
    registry.place("nested", shapes.nested())
    program = PROGRAMS["skopeo"]
    assert program.path is not None
    skopeo = program.make(program.path, source, tmp_path / "copy")
    skopeo.empty()
    assert skopeo.passes == (FIRST,)
    assert skopeo.sync(FIRST, 60).seconds > 0
    skopeo.check(content)
    other = program.make(program.path, Source(source.url, "nested"), tmp_path / "nested")
    other.empty()
    with pytest.raises(RuntimeError, match=r"\w"):
        other.sync(FIRST, 60)


def test_one_tag_moves_to_an_image_of_its_own(content: RepositoryContent) -> None:
    moved, tag = with_moved_tag(content), moved_tag(content)
    assert {name for name in content.tags if moved.tags[name] != content.tags[name]} == {tag}
    new = moved.closure([tag])
    assert not set(new.blobs) & set(content.blobs)
    assert len(new.blobs) == 2
    assert with_moved_tag(content).tags == moved.tags


def test_a_wrong_copy_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor tried again; the others are, each as often as it is selected."""

    def sync(_self: Stages, which: str, _timeout: float) -> Usage:
        done.append(f"stages, {which}")
        return Usage(0.001)

    def loop(_self: Bare, which: str, _timeout: float) -> Usage:
        done.append(f"bare, {which}")
        return Usage(1.0, 0.5, 10.0)

    done: list[str] = []
    monkeypatch.setattr(Stages, "sync", sync)
    monkeypatch.setattr(Bare, "sync", loop)
    monkeypatch.setattr(Bare, "check", lambda _self, _content: None)
    monkeypatch.setattr(Stages, "check", _incomplete)
    said: list[str] = []
    selection = Selection(["nested"], [LOOPBACK], ["stages", "bare"], runs=2)
    results = SyncResults()
    measure(selection, tmp_path, results, said.append)
    assert done == ["stages, first", *["bare, first", "bare, unchanged"] * 2]
    failed = results.at(LOOPBACK, "nested", "our stages", FIRST)
    assert (failed.seconds, failed.note) == ([], "something has not arrived")
    assert results.at(LOOPBACK, "nested", "bare loop", UNCHANGED).seconds == [1.0, 1.0]
    assert results.contents["nested"].startswith("1 tags, 8 manifests, 8 blobs")
    assert "  our stages fails: something has not arrived" in said


def _incomplete(_self: Stages, _content: RepositoryContent) -> None:
    raise RuntimeError("something has not arrived")


def test_the_tag_is_moved_for_the_third_pass_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def sync(self: Stages, which: str, _timeout: float) -> Usage:
        accept = {"Accept": OCI_INDEX + ", " + OCI_MANIFEST}
        response = requests.head(f"{self.source.url}/v2/nested/manifests/latest", headers=accept, timeout=20)
        seen[which] = response.headers["Docker-Content-Digest"]
        return Usage(1.0)

    monkeypatch.setattr(Stages, "sync", sync)
    monkeypatch.setattr(Stages, "check", lambda _self, _content: None)
    measure(Selection(["nested"], [LOOPBACK], ["stages"], runs=1), tmp_path, SyncResults(), lambda _line: None)
    assert seen[FIRST] == seen[UNCHANGED] != seen[MOVED]


def test_what_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {name: program.path for name, program in PROGRAMS.items()} == dict.fromkeys(PROGRAMS)
    said: list[str] = []
    assert _without_airflow(["regsync", "skopeo"], Source("http://r.example", "a"), tmp_path, said.append) == []
    assert [line.partition(" ")[0] for line in said] == ["skopeo", "regsync"]
    assert "go install" in said[1]


def test_the_blob_store_is_compared_on_large_and_small_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_store, "LARGE_BYTES", 2 * blob_store.CHUNK_BYTES)
    monkeypatch.setattr(blob_store, "SMALL_COUNT", 20)
    results = blob_store.measure(1)
    assert [result.written_bytes for result in results] == [2 * blob_store.CHUNK_BYTES, 140_000, 140_000]
    assert all(result.store_seconds > 0 and result.plain_seconds > 0 for result in results)
    assert "ratio" in str(results[0])
