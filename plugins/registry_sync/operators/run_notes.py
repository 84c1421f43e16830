"""The note of a DAG run: what its syncs were about and how they ended, for users of the grid and of the runs' pages.

A task cannot write the note of its run. It passes a :class:`RunNote` as an XCom, and :mod:`registry_sync.listener`
composes the notes of all tasks in the scheduler, when the run has ended. The first line is what Airflow shows of a note
without opening it: the repository and the counts, and only then names. Notes are Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry_sync.domain.quantities import format_bytes, format_count, shortened
from registry_sync.errors import RunEnded

if TYPE_CHECKING:
    from registry_sync.domain.runs import CommitResult
    from registry_sync.errors import RegistrySyncError

#: The key of the XCom with a task's note.
RUN_NOTE_KEY = "registry_sync_run_note"
_SHOWN_HOLDS = 5
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class RunNote:
    """The note of one task.

    ``about`` is its repository, with the listing task if a DAG run has several syncs; empty in XComs of earlier
    releases, and of a task that failed before it knew its sync. ``summary`` is how the sync ended, None where the task
    does not know; ``details`` are further sentences. ``is_aftermath`` says that the task found the sync ended: what
    another task knows of the reason counts more.
    """

    about: str
    summary: str | None = None
    details: tuple[str, ...] = ()
    is_aftermath: bool = False

    def push(self, context: Mapping[str, Any]) -> None:
        """Passes the note on; a later one of the same task replaces it."""
        value: dict[str, Any] = {"about": self.about, "summary": self.summary, "details": list(self.details)}
        if self.is_aftermath:
            value["is_aftermath"] = True
        context["ti"].xcom_push(key=RUN_NOTE_KEY, value=value)

    @classmethod
    def of_xcom(cls, value: Any) -> RunNote:
        """The note of an XCom."""
        if not isinstance(value, Mapping):
            return cls("", None, (str(value),))
        return cls(value["about"], value["summary"], tuple(value["details"]), bool(value.get("is_aftermath")))


def compose(notes: Iterable[RunNote]) -> str:
    """The note of a run: how each of its syncs ended, then the details. A sync's last summary counts.

    Names that are too long for the first line come last, in full. Empty without notes.
    """
    summaries: dict[str, str] = {}
    details: dict[str, list[str]] = {}
    for note in notes:
        known = details.setdefault(note.about, [])
        known += [detail for detail in note.details if detail not in known]
        if note.summary is not None and not (note.is_aftermath and note.about in summaries):
            summaries[note.about] = note.summary
    about_all = [_with(about, summaries.get(about) or "; ".join(known)) for about, known in details.items()]
    items = [
        f"- {detail if len(details) == 1 else _with(about, detail)}"
        for about, known in details.items()
        if about in summaries
        for detail in known
    ]
    items += [f"- the name in full: {about}" for about in details if about != shortened(about)]
    return "\n\n".join([*about_all, *(["\n".join(items)] if items else [])])


def about_sync(repository: str, scope: str) -> str:
    """The repository; if a DAG run has several syncs, with the listing task."""
    return f"{repository} ({scope})" if scope else repository


def version_summary(result: CommitResult, latest_number: int | None, received_bytes: int) -> str:
    """``version 3, +61 -2 tags, 158 MiB, 2 held: 1.4.0, 1.5.0``, or that nothing differs from the latest version.

    ``received_bytes`` is what all tasks of the sync downloaded; moved tags are counted as added and as removed.
    """
    if result.version is None:
        return unchanged_summary(latest_number)
    added, removed = (result.counts.get(part, {}).get("docker.tag", 0) for part in ("added", "removed"))
    parts = [f"version {result.version.number}", f"+{added:,} {_MINUS}{removed:,} tags"]
    if received_bytes:
        parts.append(format_bytes(received_bytes))
    if result.holds:
        shown = [str(hold.tag) for hold in result.holds[:_SHOWN_HOLDS]]
        more = [] if len(result.holds) <= _SHOWN_HOLDS else [f"{len(result.holds) - _SHOWN_HOLDS:,} more"]
        parts.append(f"{len(result.holds):,} held: {', '.join([*shown, *more])}")
    return ", ".join(parts)


def unchanged_summary(latest_number: int | None, tag_count: int | None = None) -> str:
    """``unchanged since version 3, 61 tags``."""
    tags = "" if tag_count is None else f", {format_count(tag_count, 'tag')}"
    return f"unchanged since version {latest_number}{tags}"


def failed_summary(problem: str) -> str:
    """``failed: `` with the reason."""
    return f"failed: {problem}"


def failure_note(about: str, error: RegistrySyncError) -> RunNote:
    """The note of a task that ``error`` ends."""
    return RunNote(about, failed_summary(str(error)), is_aftermath=isinstance(error, RunEnded))


def held_note(holds: Sequence[Mapping[str, Any]], hold_count: int) -> str:
    """``2 tags are held: a is kept at sha256:…; b is omitted``, with the reasons of the first ones."""
    shown = [_held(hold) for hold in holds[:_SHOWN_HOLDS]]
    if hold_count > len(shown):
        shown.append(f"{hold_count - len(shown):,} more")
    return f"{format_count(hold_count, 'tag')} {'is' if hold_count == 1 else 'are'} held: {'; '.join(shown)}"


def approved_note(approved_by: str, approved_at: datetime | None = None) -> str:
    """A note on who approved that a mirror removed more tags than its remote allows, and when, if known."""
    at = "" if approved_at is None else f" at {approved_at:%Y-%m-%d %H:%M} UTC"
    return f"more tags were removed or fewer are left than the remote allows, as {approved_by} approved{at}"


def referrers_note(problem: str) -> str:
    """A note on why the version may lack referrers."""
    return f"the version may lack referrers: {problem}"


def _with(about: str, text: str) -> str:
    return f"{shortened(about)}: {text}" if about else text


def _held(hold: Mapping[str, Any]) -> str:
    what = f"kept at {hold['digest'][:19]}" if hold["digest"] else "omitted"
    return f"{hold['tag']} is {what} ({hold['reason']})"
