"""What a good client does not do, recorded by the servers that saw it."""

from __future__ import annotations

import threading

from registry_sync.domain import media_types
from support.hostile_registry import Request
from support.lookalikes.quirks import Habit

_ASKED_FOR = frozenset(
    {media_types.OCI_INDEX, media_types.OCI_MANIFEST, media_types.DOCKER_LIST, media_types.DOCKER_MANIFEST}
)


class Witness:
    """Violations in the order in which they happened, none for a good client. Servers' threads share one.

    ``habits`` are what the registry did of its own, so that a test knows what its client has met.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.habits: set[Habit] = set()
        self._lock = threading.Lock()

    def note(self, violation: str) -> None:
        with self._lock:
            self.violations.append(violation)

    def met(self, habit: Habit) -> None:
        with self._lock:
            self.habits.add(habit)

    def see(self, request: Request, host: str) -> None:
        """Notes what no request at all should have, or lack."""
        if request.header("cookie") is not None:
            self.note(f"a cookie at the {host}")
        if not request.header("user-agent"):
            self.note(f"no User-Agent at the {host}")
        if request.header("accept-encoding") != "identity":
            self.note(f"Accept-Encoding {request.header('accept-encoding')} at the {host}: {request.path}")

    def see_manifest_request(self, request: Request) -> None:
        """Notes a request for a manifest that leaves the choice of its type to the registry."""
        lacking = _ASKED_FOR - accepted(request)
        if lacking:
            self.note(f"{request.method} {request.path} without {', '.join(sorted(lacking))} in Accept")
        if accepted(request) & {"*/*", "application/json"}:
            self.note(f"{request.method} {request.path} accepts anything")


def accepted(request: Request) -> set[str]:
    """The media types of ``Accept``, without parameters."""
    return {media_types.normalise(part) for part in (request.header("accept") or "").split(",")} - {""}
