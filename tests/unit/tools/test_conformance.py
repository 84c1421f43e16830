"""What is read of the conformance suite's report."""

from __future__ import annotations

import conformance
from conformance import PARTS, SuiteReport


def _text(*, failed: int = 0, **parts: str) -> str:
    statuses = {part: parts.get(part.replace(" ", "_"), "Pass") for part in PARTS}
    listed = "\n".join(f"  {part.ljust(30, '.')}: {status:>10}" for part, status in statuses.items())
    return f"""OCI Conformance Result: Pass
  Disabled......................:        193
  Skip..........................:          0
  Pass..........................:        278
  FAIL..........................: {failed:10}
  Error.........................:          0
  Total.........................:        471

API conformance:
{listed}
  Blob push.....................:   Disabled

Data conformance:
  Referrers.....................:       FAIL
"""


def test_all_is_well_when_every_part_passed() -> None:
    report = SuiteReport.parse(_text())
    assert report.problems == []
    assert (report.counts["Pass"], report.counts["FAIL"]) == (278, 0)
    assert report.parts["Blob push"] == "Disabled"


def test_a_test_that_failed_and_a_part_that_did_not_run_are_problems() -> None:
    assert SuiteReport.parse(_text(failed=2)).problems == ["2 tests: FAIL"]
    assert SuiteReport.parse(_text(Referrers="Unknown")).problems == ["Referrers: Unknown"]


def test_a_suite_that_said_nothing_has_passed_nothing() -> None:
    assert len(SuiteReport.parse("").problems) == len(conformance.PARTS)
