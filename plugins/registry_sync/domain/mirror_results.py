"""What became of the mirrors of a fleet in one task: a result for each, and their summary with the counts first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    LimitExceeded,
    NotARegistry,
    NotFound,
    NothingSynced,
    RegistrySyncError,
    RepositoryUnavailable,
    ServerUnavailable,
    UntrustedCertificate,
)


class MirrorOutcome(str, Enum):
    """How the sync of a mirror ended.

    ``unchanged`` found nothing to change, ``changed`` made a version, ``held`` too, though some tags could not be
    updated; ``handed_over``: too large for a task of many mirrors, another DAG run syncs it. ``stopped``: it would
    remove more tags than its remote allows, and waits for an approval. ``throttled``: the registry, or the budget of
    its account, allows no more for now. ``failed``: anything else.
    """

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    HELD = "held"
    HANDED_OVER = "handed_over"
    STOPPED = "stopped"
    THROTTLED = "throttled"
    FAILED = "failed"

    @property
    def is_success(self) -> bool:
        """Whether nothing remains to be done for the mirror, so that a repeat of the task leaves it out."""
        return self not in (MirrorOutcome.STOPPED, MirrorOutcome.THROTTLED, MirrorOutcome.FAILED)


#: What to do about errors whose text says only what happened; the first that fits counts.
_ADVICE: tuple[tuple[type[RegistrySyncError], str], ...] = (
    (NotFound, "correct url and upstream_name, or remove the mirror; what was synced stays"),
    (RepositoryUnavailable, "give it a connection (conn_id) whose user may read it, or correct upstream_name"),
    (AuthenticationFailed, "correct user and password of its connection"),
    (AccessDenied, "let the user of its connection read it, or give it another connection (conn_id)"),
    (NotARegistry, "correct its url"),
    (UntrustedCertificate, "give its remote or connection the CA of the registry"),
    (ServerUnavailable, "the next run tries again; where it lasts, ask who operates the registry"),
    (NothingSynced, "correct its filters, or the tags upstream"),
    (LimitExceeded, "raise the limit that it names, or select less"),
)


def advice(error: RegistrySyncError) -> str:
    """What to do about an error of a mirror, after its text; empty where the text says it."""
    found = next((text for kind, text in _ADVICE if isinstance(error, kind)), None)
    return "" if found is None else f"; {found}"


#: Characters of one error in a summary; the whole text is in the database.
_ERROR_LENGTH = 300
_SHOWN = 10


@dataclass(frozen=True)
class MirrorResult:
    """The result of one mirror in one DAG run; a repeat of the task replaces it.

    ``position`` is its place in the order in which the task's mirrors are synced, from 0; a larger ``priority`` comes
    first. ``version_number`` is the version that it made, or the latest when nothing changed; None for none.
    ``seconds``, ``request_count`` and ``received_bytes`` are of the last try. ``error`` says what happened and what to
    do, None without an error. ``is_temporary`` is whether the same may succeed later. ``sync_run_id`` is the sync, None
    where none could start; ``handed_over_to`` the run id of the DAG run that syncs a large one.
    """

    dag_id: str
    run_id: str
    task_id: str
    repository: str
    position: int
    outcome: MirrorOutcome
    started_at: datetime
    finished_at: datetime
    priority: int = 0
    try_count: int = 1
    version_number: int | None = None
    held_count: int = 0
    seconds: float = 0.0
    request_count: int = 0
    received_bytes: int = 0
    error: str | None = None
    is_temporary: bool = False
    sync_run_id: str | None = None
    handed_over_to: str | None = None


def outcome_counts(results: Iterable[MirrorResult]) -> dict[str, int]:
    """How many mirrors ended in which way, in the order of :class:`MirrorOutcome`; ways that did not occur omitted."""
    counts = dict.fromkeys(MirrorOutcome, 0)
    for result in results:
        counts[result.outcome] += 1
    return {outcome.value: count for outcome, count in counts.items() if count}


def unsuccessful(results: Iterable[MirrorResult]) -> list[MirrorResult]:
    """Those that need another try or a person, in the order of their mirrors."""
    return sorted((one for one in results if not one.outcome.is_success), key=lambda one: (one.task_id, one.position))


def counts_text(results: Sequence[MirrorResult]) -> str:
    """``990 unchanged, 8 changed, 2 failed: team/app, team/web``; at most ten names."""
    counts = ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in outcome_counts(results).items())
    names = [result.repository for result in unsuccessful(results)]
    more = [f"{len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else []
    return f"{counts or 'no mirrors'}{': ' if names else ''}{', '.join([*names[:_SHOWN], *more])}"


def error_lines(results: Sequence[MirrorResult]) -> list[str]:
    """``team/app failed: what happened and what to do`` for each that needs it; at most ten, each cut."""
    failed = unsuccessful(results)
    lines = [f"{one.repository} {one.outcome.value}: {_cut(one.error or 'no reason is known')}" for one in failed]
    more = f"and {len(failed) - _SHOWN:,} more: airflow registry-sync fleet status --failed"
    return [*lines[:_SHOWN], *([more] if len(lines) > _SHOWN else [])]


def _cut(text: str) -> str:
    return text if len(text) <= _ERROR_LENGTH else f"{text[:_ERROR_LENGTH]}\N{HORIZONTAL ELLIPSIS}"
