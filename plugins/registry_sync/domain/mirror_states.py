"""What people are notified of: states of mirrors, and the message about those that are new.

A state has a fingerprint: the same state with the same fingerprint is the same news, which nobody gets twice.
Texts come from registries in part; they are never templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class NotifiedOf(str, Enum):
    """What a notification is sent for.

    ``changed``: a new version; ``held``: tags that could not be updated; ``guard``: a sync that would remove too many
    tags, or leave too few, and was stopped; ``stale``: the last successful sync is older than ``freshness``;
    ``throttled``: the registry, or the budget of the account, allows no more for now; ``failed``: any other failure.
    """

    CHANGED = "changed"
    HELD = "held"
    GUARD = "guard"
    STALE = "stale"
    THROTTLED = "throttled"
    FAILED = "failed"


#: States that end with a successful sync, and not with a failure of another kind.
UNTIL_SUCCESS = frozenset({NotifiedOf.GUARD, NotifiedOf.THROTTLED, NotifiedOf.FAILED})
_HEADLINES = {
    NotifiedOf.CHANGED: "changed",
    NotifiedOf.HELD: "has held tags",
    NotifiedOf.GUARD: "was stopped by its guard",
    NotifiedOf.STALE: "is older than promised",
    NotifiedOf.THROTTLED: "is throttled by its upstream",
    NotifiedOf.FAILED: "failed",
}
_DETAIL_LENGTH = 1500
_SHOWN = 50


@dataclass(frozen=True)
class MirrorState:
    """A state of the mirror of ``repository``; ``detail`` says what happened and what to do.

    ``is_news`` is False where only a state before it, of another fingerprint, makes it worth a message: the latest
    version of a mirror that somebody begins to be notified of.
    """

    repository: str
    kind: NotifiedOf
    fingerprint: str
    detail: str
    is_news: bool = True

    @property
    def headline(self) -> str:
        """``team/app was stopped by its guard``."""
        return f"{self.repository} {_HEADLINES[self.kind]}"


@dataclass(frozen=True)
class StateMessage:
    """One message about one or more states, as plain text."""

    subject: str
    text: str

    @classmethod
    def of(cls, states: Sequence[MirrorState]) -> StateMessage:
        """The message about ``states``, at least one; bounded, however many they are."""
        if len(states) == 1:
            return cls(f"registry-sync: {states[0].headline}", states[0].detail[:_DETAIL_LENGTH])
        counts = dict.fromkeys((kind for kind in NotifiedOf), 0)
        for state in states:
            counts[state.kind] += 1
        said = ", ".join(f"{count:,} {kind.value}" for kind, count in counts.items() if count)
        length = max(200, _DETAIL_LENGTH // len(states))
        lines = [f"- {state.headline}: {state.detail[:length]}" for state in states[:_SHOWN]]
        more = len(states) - _SHOWN
        if more > 0:
            lines.append(f"- and {more:,} more: airflow registry-sync fleet status")
        return cls(f"registry-sync: {len(states):,} states of mirrors: {said}", "\n".join(lines))
