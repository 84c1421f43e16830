"""First syncs, unchanged ones, and those after one tag moved, of each repository over each network, by all in turn.

Each contender does all three, then the next one its own; the order turns from one time to the next. What has arrived is
held against what the registry has, after the first sync and after the tag moved.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.results import SyncResults
from benchmarks.syncs import pulp_server
from benchmarks.syncs.airflow_sync import AirflowSync, MeasuredAirflow
from benchmarks.syncs.commands import PROGRAMS
from benchmarks.syncs.contender import FIRST, MOVED, Contender, Source
from benchmarks.syncs.in_process import Bare, Stages
from benchmarks.syncs.pulp_server import PulpServer, PulpSync
from benchmarks.syncs.upstreams import NETWORKS, Registry, Upstream, moved_tag, with_moved_tag
from support import shapes
from support.images import RepositoryContent
from support.postgres import running_postgres

#: The repositories of the documentation's table.
SHAPES = ("documented_example", "application", "wide", "big", "many_tags")
ON_SQLITE, ON_POSTGRESQL, PULP = "airflow", "airflow-postgresql", "pulp"
#: Every contender by the word that chooses it.
CONTENDERS = (ON_SQLITE, ON_POSTGRESQL, "stages", "bare", *PROGRAMS, PULP)

Say = Callable[[str], None]
_Of = Callable[[Source], Contender]


@dataclass(frozen=True)
class Selection:
    """What of all is measured, and how often each. A pass is given up after ``patience_seconds``."""

    shapes: Sequence[str] = SHAPES
    networks: Sequence[str] = tuple(NETWORKS)
    contenders: Sequence[str] = CONTENDERS
    runs: int = 5
    patience_seconds: float = 180.0


def measure(selection: Selection, folder: Path, results: SyncResults, say: Say) -> None:
    """Measures what is selected, into ``results``. ``folder`` exists, and gets everything that is written."""
    with Registry(folder / "upstream") as registry, _servers(selection, registry, folder, say) as servers:
        for shape in selection.shapes:
            say(f"Building and placing {shape}")
            content = shapes.SHAPES[shape]()
            registry.place(shape, content)
            results.contents[shape] = _described(content)
            for network in selection.networks:
                with registry.reached(network) as upstream:
                    upstream.refresh(shape)
                    source = upstream.source(shape)
                    contenders = [sync(source) for sync in servers]
                    contenders += _without_airflow(selection.contenders, source, folder / "contenders", say)
                    run = _Run(results, network, shape, content, registry, upstream, selection, say)
                    run.measure(contenders)
            del content
            gc.collect()


@contextmanager
def _servers(selection: Selection, registry: Registry, folder: Path, say: Say) -> Iterator[list[_Of]]:
    """What runs all the time, as functions that give its contender for a source; PostgreSQL serves all that want it."""
    words, found = selection.contenders, list[_Of]()
    has_pulp = PULP in words and pulp_server.is_installed()
    if PULP in words and not has_pulp:
        say(f"Pulp is not installed and is left out. {pulp_server.INSTALL}")
    with ExitStack() as closing:
        server = closing.enter_context(running_postgres()) if has_pulp or ON_POSTGRESQL in words else None
        airflows = [MeasuredAirflow(folder / "sqlite", ca_path=registry.ca_path)] if ON_SQLITE in words else []
        if ON_POSTGRESQL in words:
            airflows.append(MeasuredAirflow(folder / "postgresql", server=server, ca_path=registry.ca_path))
        for airflow in airflows:
            say(f"Starting Airflow: {airflow.name}")
            closing.enter_context(airflow)
            found.append(partial(AirflowSync, airflow))
        if has_pulp:
            assert server is not None
            say("Starting Pulp")
            found.append(partial(PulpSync, closing.enter_context(PulpServer(folder / "pulp", server))))
        yield found


def _without_airflow(words: Sequence[str], source: Source, folder: Path, say: Say) -> list[Contender]:
    """Those among ``words`` that are installed; of others is said how they are."""
    found: list[Contender] = []
    if "stages" in words:
        found.append(Stages(source, folder / "stages"))
    if "bare" in words:
        found.append(Bare(source, folder / "bare"))
    for name, program in PROGRAMS.items():
        if name not in words:
            continue
        if program.path is None:
            say(f"{name} is not installed and is left out. {program.install}")
        else:
            found.append(program.make(program.path, source, folder / name))
    return found


@dataclass(frozen=True)
class _Run:
    """The measurement of one repository over one network."""

    results: SyncResults
    network: str
    shape: str
    content: RepositoryContent
    registry: Registry
    upstream: Upstream
    selection: Selection
    say: Say

    def measure(self, contenders: Sequence[Contender]) -> None:
        moved = with_moved_tag(self.content)
        for number in range(self.selection.runs):
            turned = number % max(len(contenders), 1)
            for contender in [*contenders[turned:], *contenders[:turned]]:
                if not self._has_failed(contender):
                    self._measure(contender, moved)

    def _measure(self, contender: Contender, moved: RepositoryContent) -> None:
        contender.empty()
        with contender.ready():
            for which in contender.passes:
                if not self._succeeds(contender, which, moved):
                    break
        contender.empty()

    def _succeeds(self, contender: Contender, which: str, moved: RepositoryContent) -> bool:
        """Whether a pass ended well and everything has arrived; where not, the results say why."""
        tag = moved_tag(self.content)
        if which == MOVED:
            self._place(moved.closure([tag]))
        try:
            self._pass(contender, which)
            if which == FIRST:
                contender.check(self.content)
            elif which == MOVED:
                contender.check(moved.closure([tag]))
        except RuntimeError as problem:
            self.results.at(self.network, self.shape, contender.name, which).fail(str(problem))
            self.say(f"  {contender.name} fails: {problem}")
            return False
        finally:
            if which == MOVED:  # back to what is there still
                self._place(RepositoryContent({tag: self.content.tags[tag]}, {}, {}))
        return True

    def _place(self, content: RepositoryContent) -> None:
        self.registry.place(self.shape, content)
        self.upstream.refresh(self.shape)

    def _pass(self, contender: Contender, which: str) -> None:
        os.sync()  # what others have written and the disk has not does not hold this one up
        self.upstream.forget()
        usage = contender.sync(which, self.selection.patience_seconds)
        passes = self.results.at(self.network, self.shape, contender.name, which)
        passes.add(usage)
        passes.requests = self.upstream.counts()
        self.say(f"{self.shape}, {self.network}: {contender.name}, {which}: {usage}")

    def _has_failed(self, contender: Contender) -> bool:
        at = (self.network, self.shape, contender.name)
        return any(self.results.at(*at, which).note for which in contender.passes)


def _described(content: RepositoryContent) -> str:
    counts = f"{len(content.tags):,} tags, {len(content.manifests):,} manifests, {len(content.blobs):,} blobs"
    return f"{counts}, {content.blob_bytes / 1e6:,.2f} MB"
