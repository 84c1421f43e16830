"""Measurements as tables in Markdown, for a terminal and for the documentation alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.results import Passes, SyncResults
from benchmarks.syncs.contender import MOVED, PASSES
from benchmarks.syncs.targets import DAG, Target


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells as wide as their columns; all but the first two are numbers."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    is_number = [column >= 2 for column in range(len(header))]
    marks = [f"{'-' * (width - 1)}{':' if right else '-'}" for width, right in zip(widths, is_number, strict=True)]
    return "\n".join(_line(line, widths, is_number) for line in [lines[0], marks, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, is_number, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def seconds_table(results: SyncResults, network: str) -> str:
    """Median seconds over one network, a line for each repository and pass, a column for each contender."""
    return _by_contender(results, network, _seconds)


def ratio_table(results: SyncResults, network: str) -> str:
    """How many times as long each takes as our DAG run; below one where it is faster."""
    others = [name for name in contenders(results, network) if name != DAG]

    def rows() -> Iterable[list[str]]:
        for shape, which in _situations(results, network):
            own = results.median(network, shape, DAG, which)
            theirs = [results.median(network, shape, name, which) for name in others]
            if own:
                yield [shape, which, *("" if seconds is None else f"{seconds / own:.2f}" for seconds in theirs)]

    return table(["repository", "sync", *others], rows())


def usage_table(results: SyncResults, network: str) -> str:
    """Seconds of the processor, and MiB of the largest process."""
    return _by_contender(results, network, _usage)


def requests_table(results: SyncResults, network: str) -> str:
    """The requests of each by kind, a line for each repository, pass and contender.

    Our DAG runs make the same ones with each database; those after one tag moved are left out.
    """
    shown = [
        one
        for one in results
        if one.network == network and one.which != MOVED and one.passes.requests and not one.passes.note
    ]
    shown = [one for one in shown if not one.contender.startswith(f"{DAG},")]
    kinds = sorted({kind for one in shown for kind in one.passes.requests})

    def rows() -> Iterable[list[str]]:
        for one in shown:
            counts = (one.passes.requests.get(kind) for kind in kinds)
            yield [f"{one.shape}, {one.which}", one.contender, *(f"{count:,}" if count else "" for count in counts)]

    return table(["sync", "by", *kinds], rows())


def targets_table(targets: Iterable[Target]) -> str:
    """What is promised, and whether it is kept; what was not measured is left out."""

    def rows() -> Iterable[list[str]]:
        for target in targets:
            if target.figure is not None:
                figures = (_figure(number, target.unit) for number in (target.figure, target.most))
                yield [target.words, "kept" if target.is_met else "**missed**", *figures]

    return table(["promise", "", "measured", "at most"], rows())


def failures(results: SyncResults) -> list[str]:
    """A sentence for each that has no measurement, with the reason."""
    return [
        f"{one.contender} has no figure for {one.shape}, {one.which}, {one.network}: {one.passes.note}"
        for one in results
        if one.passes.note
    ]


def _by_contender(results: SyncResults, network: str, cell: Callable[[Passes], str]) -> str:
    names = contenders(results, network)
    rows = (
        [shape, which, *(cell(results.at(network, shape, name, which)) for name in names)]
        for shape, which in _situations(results, network)
    )
    return table(["repository", "sync", *names], rows)


def contenders(results: SyncResults, network: str) -> list[str]:
    """Ours first, then in the order of their coming."""
    names = dict.fromkeys(one.contender for one in results if one.network == network)
    return sorted(names, key=lambda name: (not name.startswith(DAG), not name.startswith("our")))


def _situations(results: SyncResults, network: str) -> list[tuple[str, str]]:
    found = {(one.shape, one.which) for one in results if one.network == network}
    return [(shape, which) for shape in results.contents for which in PASSES if (shape, which) in found]


def _seconds(passes: Passes) -> str:
    return f"{passes.median:.2f}" if passes.median is not None else "†" if passes.note else ""


def _usage(passes: Passes) -> str:
    if passes.median_cpu is None or passes.largest_mib is None:
        return ""
    return f"{passes.median_cpu:.2f} / {passes.largest_mib:.0f}"


def _figure(number: float, unit: str) -> str:
    return f"{number:.2f} {unit}".rstrip() if number < 10 else f"{number:.0f} {unit}".rstrip()
