"""``python -m benchmarks``: the measurements of the project, as a table and on request as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from benchmarks import blob_store, digest_lists, fleet_syncs, fleets, pulls
from benchmarks.airflow_sync import AirflowSync
from benchmarks.bare_loop import BareLoop
from benchmarks.results import Passes, ShapeResult, table
from benchmarks.skopeo import Skopeo
from support import filling, shapes
from support.airflow_instance import AirflowInstance
from support.images import RepositoryContent
from support.registry import RegistryServer

DEFAULT_SHAPES = ("documented_example", "application")


class Contender(Protocol):
    """Something that syncs one repository into a place of its own."""

    name: str

    def empty(self) -> None: ...
    def first(self) -> None: ...
    def again(self) -> None: ...


def main() -> None:
    """Measures what the arguments ask for and prints it."""
    arguments = _arguments()
    document: dict[str, object] = {}
    only = arguments.only
    if only in (None, "blob-store"):
        _say("The blob store")
        stores = blob_store.measure(arguments.runs)
        print("\n".join(map(str, stores)), end="\n\n")
        document["blob_store"] = [vars(result) | {"ratio": result.ratio} for result in stores]
    if only in (None, "pulls"):
        _say("The pull server")
        pulled = pulls.measure(arguments.runs, _say)
        print("\n".join(map(str, pulled)), end="\n\n")
        document["pulls"] = [result.as_json() for result in pulled]
    if only in (None, "digests"):
        _say("Lists of digests")
        listed = digest_lists.measure(arguments.runs, _say)
        print(listed, end="\n\n")
        document["digest_lists"] = listed.as_json()
    if only in (None, "fleets"):
        _say("Files of mirrors")
        loaded = fleets.measure(arguments.runs)
        print(loaded, end="\n\n")
        document["fleets"] = {**vars(loaded), "ratio": loaded.ratio}
    if only in (None, "mirrors"):
        _say("Syncs of many mirrors")
        passes = fleet_syncs.measure(arguments.mirrors, _say)
        print(fleet_syncs.table(passes), end="\n\n")
        document["mirrors"] = [vars(one) for one in passes]
    if only in (None, "syncs"):
        results = measure_syncs(arguments.shapes, arguments.runs, with_airflow=not arguments.without_airflow)
        names = list(results[0].first)
        print(table(results, names, names[0]))
        document["syncs"] = [result.as_json() for result in results]
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def measure_syncs(names: list[str], runs: int, *, with_airflow: bool = True) -> list[ShapeResult]:
    """First and unchanged syncs of each shape by each contender, in turn, from one registry."""
    with (
        TemporaryDirectory() as folder,
        RegistryServer(Path(folder) / "registry") as server,
        _airflow(Path(folder) / "airflow", is_wanted=with_airflow) as airflow,
    ):
        return [_measure_shape(name, runs, server, airflow, Path(folder)) for name in names]


@contextmanager
def _airflow(folder: Path, *, is_wanted: bool) -> Iterator[AirflowInstance | None]:
    if not is_wanted:
        yield None
        return
    _say("Starting Airflow")
    with AirflowInstance(folder) as airflow:
        airflow.await_dag()
        yield airflow


def _measure_shape(
    shape: str, runs: int, server: RegistryServer, airflow: AirflowInstance | None, folder: Path
) -> ShapeResult:
    _say(f"Building and placing {shape}")
    content = shapes.SHAPES[shape]()
    filling.place(server, shape, content)
    contenders: list[Contender] = [AirflowSync(airflow, server.url, shape)] if airflow is not None else []
    contenders += [
        Skopeo(server.netloc, shape, folder / "skopeo"),
        BareLoop(server.url, shape, folder / "bare"),
    ]
    result = ShapeResult(shape, _described(content))
    for number in range(runs):
        for contender in contenders:
            _say(f"{shape}: {contender.name}, {number + 1} of {runs}")
            contender.empty()
            first = result.first.setdefault(contender.name, Passes())
            again = result.again.setdefault(contender.name, Passes())
            if _measure_pass(contender, "first", first, server):
                _measure_pass(contender, "again", again, server)
            contender.empty()
    return result


def _measure_pass(contender: Contender, which: str, passes: Passes, server: RegistryServer) -> bool:
    """Whether it went well; when not, the pass says so in place of a time."""
    server.reset_counts()
    began = time.perf_counter()
    try:
        getattr(contender, which)()
    except RuntimeError as problem:
        passes.note = "fails"
        _say(f"  {contender.name} fails: {problem}")
        return False
    took = contender.seconds if isinstance(contender, AirflowSync) else time.perf_counter() - began
    passes.seconds.append(took)
    passes.requests = {f"{method} {kind}": count for (method, kind), count in server.log().counts.items()}
    _say(f"  {which} {took:.2f} s")
    return True


def _described(content: RepositoryContent) -> str:
    counts = f"{len(content.tags)} tags, {len(content.manifests)} manifests, {len(content.blobs)} blobs"
    return f"{counts}, {content.blob_bytes / 1e6:.2f} MB"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "shapes", nargs="*", default=list(DEFAULT_SHAPES), metavar="shape", help=f"of {', '.join(shapes.SHAPES)}"
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured; medians are shown")
    parser.add_argument("--json", type=Path, help="a file to write every number to")
    parser.add_argument(
        "--only",
        choices=("blob-store", "pulls", "digests", "fleets", "mirrors", "syncs"),
        help="one of the parts; all without it",
    )
    parser.add_argument("--mirrors", type=int, default=1000, help="how many mirrors the fleet has")
    parser.add_argument("--without-airflow", action="store_true", help="only skopeo and the bare loop")
    arguments = parser.parse_args()
    if unknown := set(arguments.shapes) - set(shapes.SHAPES):
        parser.error(f"unknown shapes: {', '.join(sorted(unknown))}")
    return arguments


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
