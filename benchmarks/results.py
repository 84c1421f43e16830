"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Passes:
    """The same thing measured several times: seconds, and the requests of the last time by method and kind."""

    seconds: list[float] = field(default_factory=list)
    requests: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def median(self) -> float | None:
        """Median of the seconds; None when nothing was measured, and then ``note`` says why."""
        return statistics.median(self.seconds) if self.seconds else None

    def as_json(self) -> dict[str, Any]:
        return {
            "median_seconds": self.median,
            "seconds": self.seconds,
            "requests": dict(self.requests),
            "note": self.note,
        }


@dataclass
class ShapeResult:
    """One shape: by contender, its first syncs and those after which nothing had changed."""

    shape: str
    content: str
    first: dict[str, Passes] = field(default_factory=dict)
    again: dict[str, Passes] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "content": self.content,
            "first": {name: passes.as_json() for name, passes in self.first.items()},
            "again": {name: passes.as_json() for name, passes in self.again.items()},
        }


def table(results: Iterable[ShapeResult], contenders: list[str], ours: str) -> str:
    """A line for each shape and pass: median seconds of each contender, ours divided by theirs, our requests."""
    others = [name for name in contenders if name != ours]
    header = ["shape", "sync", ours, *others, *(f"{ours} / {name}" for name in others), f"requests of {ours}"]
    rows = [header]
    for result in results:
        for label, by_name in (("first", result.first), ("unchanged", result.again)):
            own = by_name.get(ours, Passes())
            cells = [_seconds(by_name.get(name, Passes())) for name in [ours, *others]]
            ratios = [_ratio(own, by_name.get(name, Passes())) for name in others]
            asked = ", ".join(f"{count} {kind}" for kind, count in sorted(own.requests.items()))
            rows.append([result.shape, label, *cells, *ratios, asked])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _seconds(passes: Passes) -> str:
    return f"{passes.median:.2f} s" if passes.median is not None else passes.note or "-"


def _ratio(ours: Passes, theirs: Passes) -> str:
    if ours.median is None or not theirs.median:
        return "-"
    return f"{ours.median / theirs.median:.2f}"
