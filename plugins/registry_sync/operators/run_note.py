"""What a person who watches the grid should know of a run, handed on as an XCom that becomes the run's note.

A task cannot write the note of its run. :mod:`registry_sync.listener` does, in the scheduler, when the run has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry_sync.domain.quantities import format_count

#: The key of the XCom.
RUN_NOTE_KEY = "registry_sync_run_note"
_SHOWN_HOLDS = 5


def held_note(holds: Sequence[Mapping[str, Any]], hold_count: int) -> str:
    """``2 tags are held: a is kept at sha256:…; b is left out``, with the reasons of the first ones."""
    shown = [_held(hold) for hold in holds[:_SHOWN_HOLDS]]
    if hold_count > len(shown):
        shown.append(f"{hold_count - len(shown):,} more")
    return f"{format_count(hold_count, 'tag')} {'is' if hold_count == 1 else 'are'} held: {'; '.join(shown)}"


def approved_note(approved_by: str) -> str:
    """Who let a mirror lose more than its remote allows."""
    return f"more tags were removed than the remote allows, as {approved_by} approved"


def referrers_note(problem: str) -> str:
    """Why the version may lack signatures and the like."""
    return f"the version may lack referrers: {problem}"


def _held(hold: Mapping[str, Any]) -> str:
    what = f"kept at {hold['digest'][:19]}" if hold["digest"] else "left out"
    return f"{hold['tag']} is {what} ({hold['reason']})"
