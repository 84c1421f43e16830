"""What is promised of syncs, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.results import SyncResults
from benchmarks.syncs.contender import FIRST, UNCHANGED
from benchmarks.syncs.upstreams import DIGESTS, LOOPBACK

DAG, STAGES, BARE = "registry-sync", "our stages", "bare loop"
_FAR = "80ms"
_HELLO, _APPLICATION, _WIDE, _BIG, _MANY = "documented_example", "application", "wide", "big", "many_tags"
MOST_MIB = 48.0


@dataclass(frozen=True)
class Target:
    """A promise in words, its figure, and the largest that this may be; the figure is None where not measured."""

    words: str
    figure: float | None
    most: float
    unit: str = "s"

    @property
    def is_met(self) -> bool:
        """False also for what was not measured."""
        return self.figure is not None and self.figure <= self.most


def targets(results: SyncResults, own_modules_mib: float) -> list[Target]:
    """All promises. Memory is that beyond an interpreter with Airflow, our modules included."""
    return [
        *_whole_runs(results),
        *_unchanged_runs(results),
        *_stages_alone(results),
        Target("memory of the largest task beyond Airflow", _largest(results, own_modules_mib), MOST_MIB, "MiB"),
    ]


def _whole_runs(results: SyncResults) -> Iterator[Target]:
    def seconds(shape: str, contender: str) -> float | None:
        return results.median(LOOPBACK, shape, contender, FIRST)

    yield Target("documented_example, first", seconds(_HELLO, DAG), 1.5)
    for shape in (_APPLICATION, _BIG):
        beyond = _both(seconds(shape, DAG), seconds(shape, "oras"), lambda own, other: own - other)
        yield Target(f"{shape}, first: longer than oras", beyond, 1.2)
    for shape in (_WIDE, _MANY):
        yield Target(f"{shape}, first: of the time of oras", _ratio(seconds(shape, DAG), seconds(shape, "oras")), 1, "")
    for shape, times in ((_APPLICATION, 3), (_WIDE, 2.5), (_BIG, 2)):
        ratio = _ratio(seconds(shape, DAG), seconds(shape, "skopeo"))
        yield Target(f"{shape}, first: of the time of skopeo", ratio, 1 / times, "")


def _unchanged_runs(results: SyncResults) -> Iterator[Target]:
    for shape in (_HELLO, _APPLICATION, _WIDE, _BIG):
        yield Target(f"{shape}, unchanged", results.median(LOOPBACK, shape, DAG, UNCHANGED), 0.9)
    own, heads = (results.median(LOOPBACK, _MANY, name, UNCHANGED) for name in (DAG, BARE))
    beyond = _both(own, heads, lambda own, heads: own - 1.2 * heads)
    yield Target(f"{_MANY}, unchanged: longer than 1.2 times the HEADs of the bare loop", beyond, 1)
    listed = results.median(DIGESTS, _MANY, DAG, UNCHANGED)
    yield Target(f"{_MANY}, unchanged, where the registry lists digests", listed, 1.2)


def _stages_alone(results: SyncResults) -> Iterator[Target]:
    for network, which, shapes, most in (
        (LOOPBACK, FIRST, (_APPLICATION, _WIDE, _MANY, _BIG), 1.15),
        (_FAR, FIRST, (_APPLICATION, _WIDE), 0.6),
        (_FAR, UNCHANGED, (_APPLICATION, _WIDE), 0.5),
    ):
        for shape in shapes:
            own, bare = (results.median(network, shape, name, which) for name in (STAGES, BARE))
            words = f"{shape}, {which}, {network}: our stages, of the time of the bare loop"
            yield Target(words, _ratio(own, bare), most, "")


def _largest(results: SyncResults, own_modules_mib: float) -> float | None:
    grown = [mib for one in results for mib in one.passes.grown_mib]
    return max(grown) + own_modules_mib if grown else None


def _ratio(own: float | None, other: float | None) -> float | None:
    return _both(own, other, lambda own, other: own / other)


def _both(one: float | None, other: float | None, of: Callable[[float, float], float]) -> float | None:
    return None if one is None or other is None else of(one, other)
