"""What our syncs are compared with does the whole work: otherwise the comparison would flatter or slander."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import blob_store
from benchmarks.bare_loop import BareLoop
from benchmarks.skopeo import Skopeo

from support import filling, shapes
from support.registry import RegistryServer


def test_the_bare_loop_fetches_everything_once_and_again_only_requests_the_tags(tmp_path: Path) -> None:
    content = shapes.nested().merged(shapes.documented_example())
    with RegistryServer(tmp_path / "registry") as server:
        filling.place(server, "some/name", content)
        loop = BareLoop(server.url, "some/name", tmp_path / "bare")
        loop.empty()
        loop.first()
        asked = server.log()
        assert asked.manifest_head_count == len(content.tags)
        assert asked.manifest_get_count == len(content.closure(content.tags).manifests)
        server.reset_counts()
        loop.again()
        assert server.log().counts == {("GET", "tags"): 1, ("HEAD", "manifest"): len(content.tags)}
        server.close_session()
    written = {path.name: path.read_bytes() for path in (tmp_path / "bare").iterdir()}
    assert written == {digest.encoded: blob.data for digest, blob in content.closure(content.tags).blobs.items()}


def test_skopeo_copies_every_blob_and_says_why_it_cannot(tmp_path: Path) -> None:
    content = shapes.documented_example()
    with RegistryServer(tmp_path / "registry") as server:
        filling.place(server, "plain", content)
        filling.place(server, "nested", shapes.nested())
        skopeo = Skopeo(server.netloc, "plain", tmp_path / "copy")
        skopeo.empty()
        skopeo.first()
        skopeo.again()
        with pytest.raises(RuntimeError):
            Skopeo(server.netloc, "nested", tmp_path / "nested").first()
        server.close_session()
    copied = {path.name for path in (tmp_path / "copy").rglob("*")}
    assert copied >= {digest.encoded for digest in content.blobs}


def test_the_blob_store_is_compared_on_large_and_small_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_store, "LARGE_BYTES", 2 * blob_store.CHUNK_BYTES)
    monkeypatch.setattr(blob_store, "SMALL_COUNT", 20)
    results = blob_store.measure(1)
    assert [result.written_bytes for result in results] == [2 * blob_store.CHUNK_BYTES, 140_000, 140_000]
    assert all(result.store_seconds > 0 and result.plain_seconds > 0 for result in results)
    assert "ratio" in str(results[0])
