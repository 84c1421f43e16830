"""What was measured: each pass with its seconds, processor time, size and requests, and all of them as a document."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class TookTooLong(RuntimeError):
    """A pass was ended after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"over {seconds:.0f} s")


@dataclass(frozen=True)
class Usage:
    """What one pass took. ``peak_mib`` is the largest size of a process in memory; None where it is not known.

    ``grown_mib`` is by how much the process was larger at its largest than before it began, where that is known.
    """

    seconds: float
    cpu_seconds: float | None = None
    peak_mib: float | None = None
    grown_mib: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.seconds:.2f} s"]
        parts += [f"{self.cpu_seconds:.2f} CPU-s"] if self.cpu_seconds is not None else []
        parts += [f"{self.peak_mib:.0f} MiB"] if self.peak_mib is not None else []
        return ", ".join(parts)


@dataclass
class Passes:
    """The same thing measured several times; the requests are those of the last time, by method and kind.

    ``note`` says why there is no measurement, empty where there is one.
    """

    seconds: list[float] = field(default_factory=list)
    requests: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    cpu_seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    grown_mib: list[float] = field(default_factory=list)

    def add(self, usage: Usage) -> None:
        """One time more."""
        self.seconds.append(usage.seconds)
        if usage.cpu_seconds is not None:
            self.cpu_seconds.append(usage.cpu_seconds)
        if usage.peak_mib is not None:
            self.peak_mib.append(usage.peak_mib)
        if usage.grown_mib is not None:
            self.grown_mib.append(usage.grown_mib)

    def fail(self, reason: str) -> None:
        """Forgets what was measured: it is not known what it did."""
        self.note = reason
        for numbers in (self.seconds, self.cpu_seconds, self.peak_mib, self.grown_mib):
            numbers.clear()

    @property
    def median(self) -> float | None:
        """Median of the seconds; None when nothing was measured, and then ``note`` says why."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def median_cpu(self) -> float | None:
        """Median of the processor's seconds; None where they are not known."""
        return statistics.median(self.cpu_seconds) if self.cpu_seconds else None

    @property
    def largest_mib(self) -> float | None:
        """The largest size of all times; None where it is not known."""
        return max(self.peak_mib, default=None)

    def as_json(self) -> dict[str, Any]:
        return {
            "median_seconds": self.median,
            "seconds": _rounded(self.seconds, 4),
            "cpu_seconds": _rounded(self.cpu_seconds, 3),
            "peak_mib": _rounded(self.peak_mib, 1),
            "grown_mib": _rounded(self.grown_mib, 1),
            "requests": dict(sorted(self.requests.items())),
            "note": self.note,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Passes:
        """The passes that :meth:`as_json` wrote."""
        names = ("seconds", "requests", "note", "cpu_seconds", "peak_mib", "grown_mib")
        return cls(**{name: document[name] for name in names})


def _rounded(numbers: Sequence[float], digits: int) -> list[float]:
    return [round(number, digits) for number in numbers]


@dataclass(frozen=True)
class Measured:
    """The passes of one contender in one situation: ``which`` is first, unchanged or one tag moved."""

    network: str
    shape: str
    contender: str
    which: str
    passes: Passes = field(default_factory=Passes)

    def as_json(self) -> dict[str, Any]:
        key = {"network": self.network, "shape": self.shape, "contender": self.contender, "which": self.which}
        return key | self.passes.as_json()


class SyncResults:
    """All passes of a run. ``contents`` says in words what each shape has."""

    def __init__(self, measured: Iterable[Measured] = (), contents: Mapping[str, str] | None = None) -> None:
        self._measured = {(one.network, one.shape, one.contender, one.which): one for one in measured}
        self.contents = dict(contents or {})

    def __iter__(self) -> Any:
        return iter(self._measured.values())

    def at(self, network: str, shape: str, contender: str, which: str) -> Passes:
        """The passes, to which a measurement can be added."""
        key = (network, shape, contender, which)
        return self._measured.setdefault(key, Measured(*key)).passes

    def median(self, network: str, shape: str, contender: str, which: str) -> float | None:
        """Median of the seconds; None where nothing was measured."""
        one = self._measured.get((network, shape, contender, which))
        return None if one is None else one.passes.median

    def values(self, name: str) -> list[str]:
        """The different values of ``network``, ``shape``, ``contender`` or ``which``, in the order of their coming."""
        return list(dict.fromkeys(getattr(one, name) for one in self))

    def as_json(self) -> dict[str, Any]:
        return {"contents": self.contents, "measured": [one.as_json() for one in self]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SyncResults:
        """The results that :meth:`as_json` wrote."""
        measured = [
            Measured(one["network"], one["shape"], one["contender"], one["which"], Passes.from_json(one))
            for one in document["measured"]
        ]
        return cls(measured, document["contents"])
