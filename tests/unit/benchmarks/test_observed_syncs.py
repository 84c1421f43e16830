"""How the cost of being watched reads."""

from __future__ import annotations

from benchmarks.observed_syncs import ALL, FORKED, PLAIN, WITHOUT_LINEAGE, ObservedShape
from benchmarks.results import Passes


def test_each_is_compared_with_the_sync_beside_it_that_sends_nothing() -> None:
    def passes(*seconds: float) -> Passes:
        return Passes(list(seconds))

    first = {
        PLAIN: passes(2.0, 9.0, 1.0),
        WITHOUT_LINEAGE: passes(2.1, 9.0, 1.5),
        FORKED: passes(3.0, 9.9, 2.0),
        ALL: passes(2.5, 9.0, 7.0),
    }
    again = {PLAIN: passes(1.0), WITHOUT_LINEAGE: passes(0.9), FORKED: passes(1.3), ALL: passes(1.2)}
    assert str(ObservedShape("small", first, again, {"statsd": 3})).splitlines() == [
        "small, first, all but lineage: 2.10 s for 2.00, 1.050",
        "small, first, all, lineage by forks: 3.00 s for 2.00, 1.500",
        "small, first, all: 7.00 s for 2.00, 1.250",
        "small, unchanged, all but lineage: 0.90 s for 1.00, 0.900",
        "small, unchanged, all, lineage by forks: 1.30 s for 1.00, 1.300",
        "small, unchanged, all: 1.20 s for 1.00, 1.200",
        "received: {'statsd': 3}",
    ]
