"""``python -m benchmarks.report FILE…``: the page of measured syncs and its plot, from the JSON of runs.

No figure in the page is typed by hand: what stands between its two marks is written here, and so is the plot. The JSON
is kept beside, and a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import fleet_syncs
from benchmarks.results import SyncResults
from benchmarks.syncs import tables
from benchmarks.syncs.plot import svg
from benchmarks.syncs.targets import targets
from benchmarks.syncs.upstreams import LOOPBACK, NETWORKS

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOT = DOCS / "reference" / "benchmarks.md", DOCS / "images" / "benchmarks.svg"
FIGURES = DOCS / "reference" / "benchmarks.json"
BEGIN, END = "<!-- measured: written by python -m benchmarks.report -->", "<!-- end of what was measured -->"


def syncs_of(document: Mapping[str, Any]) -> SyncResults:
    """The syncs of a run's JSON. Raises :class:`ValueError` where none were measured."""
    if "syncs" not in document:
        raise ValueError("the run measured no syncs: ONLY=syncs")
    return SyncResults.from_json(document["syncs"])


def joined(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The syncs of several runs on one machine, which is described as before the first of them.

    All figures of a repository on a network come from one run, the last that measured it, and so do those of many
    mirrors of one registry over one network.
    """
    contents: dict[str, str] = {}
    measured: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    mirrors: dict[tuple[str, int, str], Mapping[str, Any]] = {}
    for document in documents:
        mirrors |= {
            (one["registry"], one["mirror_count"], one.get("network", LOOPBACK)): one
            for one in document.get("mirrors", ())
        }
        if "syncs" not in document and "mirrors" in document:
            continue
        syncs_of(document)
        contents |= document["syncs"]["contents"]
        own: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for one in document["syncs"]["measured"]:
            own.setdefault((one["network"], one["shape"]), []).append(one)
        measured |= own
    syncs = {"contents": contents, "measured": [one for group in measured.values() for one in group]}
    of_mirrors = {"mirrors": list(mirrors.values())} if mirrors else {}
    return {"machine": documents[0]["machine"], "syncs": syncs, **of_mirrors}


def measured_part(document: Mapping[str, Any]) -> str:
    """What was measured, in Markdown, for the page."""
    return "\n\n".join(_sections(document, syncs_of(document))) + "\n"


def plot(document: Mapping[str, Any]) -> str:
    """The plot as SVG, of the first network of the run."""
    results = syncs_of(document)
    return svg(results, results.values("network")[0])


def page_with(page: str, part: str) -> str:
    """``page`` with ``part`` between its marks. Raises :class:`ValueError` where they are not there."""
    before, began, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (began and ended):
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{part}\n{END}{after}"


def _sections(document: Mapping[str, Any], results: SyncResults) -> Iterator[str]:
    machine = document["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    yield (
        f"On {machine['date']}, medians of {_times(results)}, each repository on a network in one run, "
        f"on {machine['cores']} cores ({machine['processor']}) with {machine['memory_gib']} GiB, {machine['system']}, "
        f"Linux {machine['linux']}; load of the machine before the run: {machine['load']}. {versions}."
    )
    contents = [[shape, content] for shape, content in results.contents.items()]
    yield tables.table(["repository", "content"], contents)
    first, *others = results.values("network")
    yield f"### Seconds: {NETWORKS[first]}"
    yield f"![Median seconds of first and unchanged syncs](../images/{PLOT.name})"
    yield tables.seconds_table(results, first)
    if ratios := tables.ratio_table(results, first):
        yield "As multiples of the whole DAG run on SQLite; above 1 the DAG run is faster:"
        yield ratios
    for network in others:
        yield f"### Seconds: {NETWORKS[network]}"
        yield tables.seconds_table(results, network)
    yield "### Processor and memory"
    yield (
        "Seconds of the processor / MiB of the largest process. Of DAG runs the seconds are those of all of Airflow, "
        "and the size is that of the largest task, Airflow included; our modules are "
        f"{machine['own_modules_mib']} MiB of it."
    )
    yield tables.usage_table(results, first)
    yield "### Requests"
    yield tables.requests_table(results, first)
    yield "### Promises"
    yield tables.targets_table(targets(results, machine["own_modules_mib"]))
    if many := document.get("mirrors"):
        yield "### Many mirrors"
        yield (
            f"Mirrors of {fleet_syncs.TAGS} tags each, in {fleet_syncs.CHUNKS} tasks, beside `regsync once`. "
            "Empty tasks are a DAG of the same tasks with the same mirrors, whose bodies do nothing: "
            "what Airflow itself takes."
        )
        for one in many:
            network = NETWORKS[one.get("network", LOOPBACK)]
            yield f"{one['mirror_count']:,} mirrors of {one['registry']}, over {network}:"
            yield _mirrors_table(one)
    if failed := tables.failures(results):
        yield "### Without a figure (†)"
        yield "\n".join(f"- {line}" for line in failed)


def _mirrors_table(measured: Mapping[str, Any]) -> str:
    header = ["sync", "by", "s", "s until the first task", "s of the processor", "HEADs", "requests", "MiB"]
    passes = [fleet_syncs.FleetPass(**one) for one in measured["passes"]]
    beyond = {one.which: f"{one.beyond_seconds:+.1f}" for one in fleet_syncs.comparisons(passes)}
    rows = []
    for one in passes:
        start = f"{one.start_seconds:.1f}" if one.task_count else ""
        counts = [f"{one.head_count:,}", f"{one.request_count:,}"] if one.contender != fleet_syncs.EMPTY else ["", ""]
        row = [one.which, one.contender, f"{one.seconds:.1f}", start, f"{one.cpu_seconds:.1f}", *counts]
        row += [f"{one.peak_mib:.0f}", beyond.get(one.which, "") if one.contender == fleet_syncs.OWN else ""]
        rows.append(row)
    return tables.table([*header, "s beyond both others"], rows)


def _times(results: SyncResults) -> str:
    counts = [len(one.passes.seconds) for one in results if one.passes.seconds]
    least, most = min(counts), max(counts)
    return f"{most}" if least == most else f"{least} to {most}"


def main() -> None:
    """Writes page and plot, and keeps the figures beside the page."""
    sources = [Path(name) for name in sys.argv[1:]] or [FIGURES]
    document = joined([json.loads(source.read_text()) for source in sources])
    PAGE.write_text(page_with(PAGE.read_text(), measured_part(document)))
    PLOT.write_text(plot(document))
    FIGURES.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
