"""Which lines and branches of the package the tests run, measured by SlipCover in the processes of pytest.

Programs that tests start, such as the tasks of a real Airflow, are not measured. SlipCover's own command would measure
the tests' code as well, and could not be told in pytest's other processes how often to remove its probes from what has
run already: walking all functions for that costs more than leaving them in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import slipcover
from slipcover.config import read_config

from support.kept_instrumentation import NEVER, KeptInstrumentation

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "plugins/registry_sync"
#: The variable of the environment that asks for it; `make test` sets it.
VARIABLE = "COVERAGE"
_LISTED_COUNT = 10


def start_if_wanted() -> BranchCoverage | None:
    """Measures everything of the package that is imported from now on; None when :data:`VARIABLE` is not set."""
    if os.environ.get(VARIABLE, "") in ("", "0"):
        return None
    least_percent = float(read_config(CHECKOUT / "pyproject.toml")["fail-under"])
    coverage = BranchCoverage(
        PACKAGE, least_percent, CHECKOUT / ".local/coverage.json", kept=CHECKOUT / ".local/cache/coverage"
    )
    coverage.start()
    return coverage


class BranchCoverage:
    """What this process and, with pytest-xdist, its workers have run of the Python files below ``package``.

    A pytest plugin: tests that run less than ``least_percent`` of lines and branches together fail. What ran and what
    did not, line by line, is written to ``output``. ``kept`` is the folder of :class:`KeptInstrumentation`.
    """

    def __init__(self, package: Path, least_percent: float, output: Path, *, kept: Path) -> None:
        self._least_percent = least_percent
        self._output = output
        self._kept = kept
        self._matcher = slipcover.FileMatcher(sources=[str(package)])
        self._cover = slipcover.Slipcover(branch=True, source=[str(package)], d_miss_threshold=NEVER)
        self._of_workers: list[dict[str, Any]] = []
        self._measured: dict[str, Any] | None = None

    def start(self) -> None:
        """From now on what is imported is measured, migrations included, which Alembic loads by their paths."""
        KeptInstrumentation(self._cover, self._kept).install()
        slipcover.ImportManager(self._cover, self._matcher).__enter__()
        slipcover.wrap_spec_from_file_location(self._cover, self._matcher)

    def measured(self) -> dict[str, Any]:
        """All that was run so far, by file, in SlipCover's format."""
        if self._of_workers:  # each of which has listed what it did not import
            self._cover.source = None
        measured: dict[str, Any] = self._cover.get_coverage()
        for other in self._of_workers:
            slipcover.merge_coverage(measured, other)
        return measured

    # -- hooks of pytest -------------------------------------------------------------------------------------------

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands over what it ran."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["coverage"] = json.dumps(self._cover.get_coverage())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended; one that was killed hands over nothing."""
        if found := getattr(node, "workeroutput", {}).get("coverage"):
            self._of_workers.append(json.loads(found))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Any:
        """Tests that all pass and leave too much out fail together."""
        result = yield
        if not hasattr(session.config, "workeroutput"):
            self._measured = self.measured()
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._output.write_text(json.dumps(self._measured))
            if self._measured["summary"]["percent_covered"] < self._least_percent:
                session.testsfailed += 1
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._measured is not None:
            terminalreporter.section("branch coverage")
            terminalreporter.write_line(report(self._measured, self._least_percent))
            terminalreporter.write_line(f"all of it: {self._output}")


def report(measured: dict[str, Any], least_percent: float) -> str:
    """The sums, the files with the most left out, and a verdict."""
    files = measured["files"]
    by_missing = sorted(files, key=lambda name: (-_missing_count(files[name]), name))
    lines = [
        f"{_missing_count(files[name]):5} lines and branches not run in {name}: {_ranges(files[name]['missing_lines'])}"
        for name in by_missing[:_LISTED_COUNT]
        if _missing_count(files[name])
    ]
    total = measured["summary"]
    branches = _percent(total["covered_branches"], total["missing_branches"])
    of_lines = _percent(total["covered_lines"], total["missing_lines"])
    percent = total["percent_covered"]
    lines.append(
        f"lines {of_lines:.1f} %, branches {branches:.1f} %, together {percent:.2f} %; required: {least_percent:g} %"
    )
    if percent < least_percent:
        lines.append("FAILED: the tests leave out more of the package than they may")
    return "\n".join(lines)


def _missing_count(file: dict[str, Any]) -> int:
    return len(file["missing_lines"]) + len(file["missing_branches"])


def _percent(covered: int, missing: int) -> float:
    return 100 * covered / (covered + missing) if covered + missing else 100.0


def _ranges(numbers: list[int], most: int = 8) -> str:
    """``3-5, 9`` for 3, 4, 5, 9; at most so many ranges."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    return ", ".join(shown) + (" …" if len(ranges) > most else "")
