"""How a measurement beside the peer reads."""

from __future__ import annotations

from benchmarks.pulls import PullResult


def test_the_ratio_is_of_medians_and_more_is_better() -> None:
    result = PullResult(
        "2000 blobs",
        2000,
        ours=[1.0, 0.5, 9.0],
        peer=[4.0, 3.0, 5.0],
        ours_cpu=[0.8, 0.4, 0.9],
        peer_cpu=[2.0, 2.5, 3.0],
        worker_bytes=70 * 2**20,
    )
    assert result.speed_ratio == 4.0
    line = str(result)
    assert "ours 1.00 s (2,000/s)" in line
    assert "docker-registry 4.00 s (500/s), 4.00 times as fast; CPU 0.80 s and 2.50 s; a worker 70 MiB" in line


def test_what_has_no_peer_shows_memory_alone() -> None:
    result = PullResult("200 clients", 200, worker_bytes=80 * 2**20)
    assert str(result).split() == ["200", "clients", "a", "worker", "80", "MiB"]
    assert result.as_json()["speed_ratio"] is None
