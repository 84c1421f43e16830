"""``python -m benchmarks``: the measurements of the project, as tables and on request as JSON."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

from benchmarks import (
    blob_store,
    digest_lists,
    fleet_syncs,
    fleets,
    large_fleets,
    machine,
    observed_syncs,
    pulls,
    scale,
)
from benchmarks.cleaning_up import run_folder
from benchmarks.fleet_syncs import FLEET_NETWORKS
from benchmarks.results import SyncResults
from benchmarks.syncs import tables
from benchmarks.syncs.measuring import CONTENDERS, SHAPES, Selection, measure
from benchmarks.syncs.targets import targets
from benchmarks.syncs.upstreams import LOOPBACK, NETWORKS
from support import shapes

#: The repositories of measurements that are not about repositories of all kinds.
_OBSERVED_SHAPES = ("documented_example", "application")


def main() -> None:
    """Measures what the arguments ask for and prints it."""
    arguments = _arguments()
    get_temp_dir()  # of what starts processes, which removes it at the very end
    with run_folder() as folder:
        os.environ["AIRFLOW_HOME"] = str(folder / "airflow")
        run = _Run(arguments, folder, {"machine": machine.described(dt.datetime.now(dt.timezone.utc))})
        try:
            for part, of_part in _PARTS.items():
                if part in arguments.only:
                    of_part(run)
        finally:
            if arguments.json:
                arguments.json.write_text(json.dumps(run.document, indent=1) + "\n")


@dataclass(frozen=True)
class _Run:
    """What is measured is added to ``document``; ``folder`` is removed at the end."""

    arguments: argparse.Namespace
    folder: Path
    document: dict[str, Any]


def _blob_store(run: _Run) -> None:
    _say("The blob store")
    stores = blob_store.measure(run.arguments.runs)
    _show(map(str, stores))
    run.document["blob_store"] = [vars(result) | {"ratio": result.ratio} for result in stores]


def _pulls(run: _Run) -> None:
    _say("The pull server")
    pulled = pulls.measure(run.arguments.runs, _say)
    _show(map(str, pulled))
    run.document["pulls"] = [result.as_json() for result in pulled]


def _digests(run: _Run) -> None:
    _say("Lists of digests")
    listed = digest_lists.measure(run.arguments.runs, _say)
    _show([str(listed)])
    run.document["digest_lists"] = listed.as_json()


def _fleets(run: _Run) -> None:
    _say("Files of mirrors")
    loaded = fleets.measure(run.arguments.runs)
    _show([str(loaded)])
    run.document["fleets"] = {**vars(loaded), "ratio": loaded.ratio}


def _mirrors(run: _Run) -> None:
    _say("Syncs of many mirrors")
    arguments, measured = run.arguments, run.document.setdefault("mirrors", [])
    for network in [name for name in arguments.networks if name in FLEET_NETWORKS] or [LOOPBACK]:
        registry: Any = {"lists_digests": arguments.digest_lists, "network": network}
        passes = fleet_syncs.measure(arguments.mirrors, arguments.runs, _say, **registry)
        _show([f"Over {NETWORKS[network]}", fleet_syncs.table(passes)])
        measured.append(fleet_syncs.as_json(passes, arguments.mirrors, **registry))


def _observed(run: _Run) -> None:
    _say("Syncs that are watched")
    observed = observed_syncs.measure(run.arguments.shapes or list(_OBSERVED_SHAPES), run.arguments.runs, _say)
    _show(map(str, observed))
    run.document["observed"] = [one.as_json() for one in observed]


def _scale(run: _Run) -> None:
    _say("Large repositories and fleets")
    arguments, measured = run.arguments, scale.Measured()
    try:
        repositories = arguments.databases, arguments.tags, arguments.units
        scale.measure(*repositories, measured, _say, tags_per_image=arguments.tags_per_image)
        if arguments.repositories:
            large_fleets.measure(arguments.databases, arguments.repositories, measured, _say)
    finally:  # what there is, also where it is ended before its time
        run.document["scale"] = [vars(cost) for cost in measured.costs]
        run.document["scale_databases"] = [vars(size) for size in measured.sizes]
    _show([scale.table(measured.costs), *map(str, measured.sizes)])


def _syncs(run: _Run) -> None:
    _say("Syncs, beside other programs")
    arguments = run.arguments
    selection = Selection(
        arguments.shapes or SHAPES,
        arguments.networks or list(NETWORKS),
        arguments.contenders,
        arguments.runs,
        arguments.patience,
    )
    results = SyncResults()
    try:
        measure(selection, run.folder, results, _say)
    finally:  # what there is, also where it is ended before its time
        run.document["syncs"] = results.as_json()
    for network in results.values("network"):
        _show([f"Seconds: {NETWORKS[network]}", tables.seconds_table(results, network)])
        _show(["Seconds of the processor / MiB of the largest process", tables.usage_table(results, network)])
    promised = targets(results, run.document["machine"]["own_modules_mib"])
    _show([tables.targets_table(promised), *tables.failures(results)])


#: The measurements by the word that chooses each.
_PARTS: dict[str, Callable[[_Run], None]] = {
    "blob-store": _blob_store,
    "pulls": _pulls,
    "digests": _digests,
    "fleets": _fleets,
    "mirrors": _mirrors,
    "observed": _observed,
    "scale": _scale,
    "syncs": _syncs,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    _add_choices(parser, "--only", _PARTS, "what is measured")
    _add_choices(parser, "--shapes", shapes.SHAPES, "repositories", default=())
    _add_choices(parser, "--networks", NETWORKS, "networks of syncs; of mirrors loopback without", default=())
    _add_choices(parser, "--contenders", CONTENDERS, "what syncs are measured of")
    _add_choices(parser, "--databases", scale.DATABASES, "databases at scale")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; medians are shown")
    parser.add_argument(
        "--patience", type=float, default=180.0, metavar="SECONDS", help="after which a sync is given up"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to write every number to")
    parser.add_argument("--mirrors", type=int, default=1000, help="how many mirrors the fleet has")
    for name, count in (("tags", 50_000), ("units", 100_000)):
        help_text = f"repositories of so many {name} at scale; 0 for none"
        parser.add_argument(f"--{name}", type=int, nargs="+", default=[count], help=help_text)
    parser.add_argument("--tags-per-image", type=int, default=10, help="how many of the tags each image has at scale")
    parser.add_argument("--repositories", type=int, default=10_000, help="so many repositories at scale; 0 for none")
    parser.add_argument(
        "--digest-lists", action="store_true", help="the fleet's registry lists tags with their digests"
    )
    return parser.parse_args()


def _add_choices(
    parser: argparse.ArgumentParser, option: str, known: Iterable[str], what: str, default: Iterable[str] | None = None
) -> None:
    names = list(known)

    def chosen(text: str) -> list[str]:
        given = set(text.replace(",", " ").split())
        if unknown := given - set(names):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return [name for name in names if name in given]

    text = f"{what}, separated by commas or blanks, of: {', '.join(names)}"
    parser.add_argument(option, type=chosen, default=list(names if default is None else default), help=text)


def _show(lines: Iterable[str]) -> None:
    print("\n".join(lines), end="\n\n", flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
