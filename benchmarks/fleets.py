"""The loading of ten thousand mirrors from what was compiled, beside the reading of their file.

Seconds are those of the processor, medians of passes; no other process is counted, and no import.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from registry_sync.fleet.declared_fleet import Fleet
from registry_sync.fleet.loading import load_fleet

MIRRORS = 10_000
_HEAD = """\
version: 1
defaults: {schedule: "@daily", spread: 2h, owner: p, tags: {exclude: ["*-debug"]}, guard: {max_removed_share: 0.3}}
groups: {hub: {platforms: [linux/amd64, linux/arm64], labels: {team: base}}}
mirrors:
"""
_MIRROR = """\
  - source: quay.io/team-{team}/app-{number}
    group: hub
    tags: {{include: ["3.*", latest]}}
    description: Mirror number {number}
    publish: {{base_path: mirror/app-{number}, private: false}}
"""


@dataclass(frozen=True)
class FleetResult:
    """Seconds of the processor to read the file, and to load what was compiled with all of its mirrors."""

    mirrors: int
    read_seconds: float
    load_seconds: float

    @property
    def ratio(self) -> float:
        """How many times as fast as the reading the loading is."""
        return self.read_seconds / self.load_seconds

    def __str__(self) -> str:
        return (
            f"{self.mirrors:,} mirrors: read {self.read_seconds:.2f} s, compiled {self.load_seconds:.3f} s, "
            f"{self.ratio:.0f} times as fast"
        )


def measure(runs: int, mirrors: int = MIRRORS) -> FleetResult:
    """Reads and loads a file of that many mirrors ``runs`` times."""
    with TemporaryDirectory() as folder:
        path, cache = Path(folder) / "mirrors.yaml", Path(folder) / "cache"
        entries = (_MIRROR.format(team=number % 97, number=number) for number in range(mirrors))
        path.write_text(_HEAD + "".join(entries))
        load_fleet(path, cache, {})
        read = [_seconds(lambda: load_fleet(path, None, {})) for _ in range(runs)]
        loaded = [_seconds(lambda: load_fleet(path, cache, {})) for _ in range(runs)]
    return FleetResult(mirrors, median(read), median(loaded))


def _seconds(load: Callable[[], Fleet]) -> float:
    began = time.process_time()
    fleet = load()
    if fleet.mistakes or not fleet.mirrors:
        raise RuntimeError("the fleet of the benchmark is in disorder")
    return time.process_time() - began
