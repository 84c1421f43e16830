"""How many requests at once a registry that is far away has served, for the next sync to begin with.

A number that one sync has found lasts for some days, and until a registry refuses a request or gets slower. It is found
anew then: the registry, or the way to it, may be another by now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

#: Requests to a registry that is far away take longer than this; nearby, more at once only wait for each other.
FAR_SECONDS = 0.015
#: What is begun beside a request to it waits for so long: no other thread gets in the way of that request then.
HEAD_START_SECONDS = 0.005
#: How long a number is used after it was found.
REMEMBERED = timedelta(days=7)
#: So much later than now the clock of another machine may be.
_CLOCKS_APART = timedelta(hours=1)


@dataclass(frozen=True)
class RegistryPace:
    """``at_once`` requests were served as fast as fewer; 0 says that one was refused since, and nothing is known.

    ``usual_seconds`` are the usual times of responses by kind of request, with which later ones are compared.
    ``found_at`` is when a sync found the number that had begun without one. ``head_count`` is how many HEADs the last
    sync sent, so that as many connections are worth opening before the first, and ``lists_digests`` whether its list of
    tags had their digests, which make HEADs needless.
    """

    at_once: int
    found_at: datetime
    usual_seconds: Mapping[str, float] = field(default_factory=dict)
    head_count: int = 0
    lists_digests: bool = False

    def next_for(self, head_count: int, now: datetime) -> RegistryPace | None:
        """What a sync begins with that follows one that sent so many HEADs; None for nothing."""
        is_current = -_CLOCKS_APART <= now - self.found_at < REMEMBERED
        return replace(self, head_count=head_count) if self.at_once and is_current else None

    def shared(self, count: int) -> RegistryPace:
        """The part of one of ``count`` tasks that make requests at the same time."""
        return self if count == 1 else replace(self, at_once=self.at_once // count)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "found_at": self.found_at.isoformat(), "usual_seconds": dict(self.usual_seconds)}

    @classmethod
    def of_document(cls, document: Any) -> RegistryPace | None:
        """The pace of :meth:`document`; None for what is none, as of another release."""
        try:
            usual = {str(kind): float(seconds) for kind, seconds in document["usual_seconds"].items()}
            found_at = datetime.fromisoformat(document["found_at"])
            counts = int(document["at_once"]), int(document["head_count"])
            return cls(counts[0], found_at, usual, counts[1], bool(document["lists_digests"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
