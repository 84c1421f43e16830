"""The states of a mirror that people may be notified of, as they are in the database after a sync has ended.

They are of what is stored and not of one run alone: a version that another run made, such as that of a large mirror
that was handed over, is found by the next sync of the mirror.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.domain.mirror_states import MirrorState, NotifiedOf
from registry_sync.domain.quantities import format_count, format_duration
from registry_sync.domain.version_history import TagDifference
from registry_sync.errors import RecordNotFound

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.domain.records import Repository, RepositoryVersion

#: A version that was made before is news only to who was notified of an earlier one.
NEWS_FOR = timedelta(hours=12)
_SHOWN_TAGS = 10
_KINDS = {
    MirrorOutcome.STOPPED: NotifiedOf.GUARD,
    MirrorOutcome.THROTTLED: NotifiedOf.THROTTLED,
    MirrorOutcome.FAILED: NotifiedOf.FAILED,
}


def observed_states(
    database: Database,
    name: str,
    now: datetime,
    *,
    outcome: MirrorOutcome,
    error: str | None = None,
    refused: str | None = None,
    freshness: timedelta | None = None,
    since: datetime | None = None,
) -> list[MirrorState]:
    """The states of the mirror ``name`` after a sync that ended in ``outcome`` with ``error``.

    ``refused`` is the fingerprint of removals that were refused. ``freshness`` is how old the last successful sync may
    be; None for any age; one that has never succeeded is counted from ``since``, or from its creation where that was
    earlier. A mirror without a repository has had no sync yet, or failed before its first.
    """
    states = []
    kind = _KINDS.get(outcome)
    if kind is not None:
        text = error or "no reason is known"
        fingerprint = refused if kind is NotifiedOf.GUARD and refused else text.partition(":")[0]
        states.append(MirrorState(name, kind, fingerprint, text))
    repository = _repository(database, name)
    stale = _stale(database, name, repository, freshness, now, since=since)
    if stale is not None:
        states.append(stale)
    latest = None if repository is None else database.versions.latest(repository.id)
    if latest is not None:
        states += _of_version(database, name, latest, now)
    return states


def _of_version(database: Database, name: str, latest: RepositoryVersion, now: datetime) -> list[MirrorState]:
    difference = database.versions.tag_difference(latest, limit=_SHOWN_TAGS)
    text = f"version {latest.number}{_difference_text(difference)}"
    is_news = now - latest.created_at <= NEWS_FOR
    states = [MirrorState(name, NotifiedOf.CHANGED, str(latest.number), text, is_news)]
    if latest.holds:
        shown = "; ".join(f"{hold.tag}: {hold.reason}" for hold in latest.holds[:_SHOWN_TAGS])
        more = len(latest.holds) - _SHOWN_TAGS
        text = f"{format_count(len(latest.holds), 'tag')} held in version {latest.number}: {shown}"
        held = hashlib.sha256("\n".join(sorted(hold.tag for hold in latest.holds)).encode()).hexdigest()
        states.append(MirrorState(name, NotifiedOf.HELD, held, f"{text}; {more:,} more" if more > 0 else text, is_news))
    return states


def _difference_text(difference: TagDifference) -> str:
    counts = (
        ("moved", difference.moved_count),
        ("added", difference.added_count),
        ("removed", difference.removed_count),
    )
    said = ", ".join(f"{format_count(count, 'tag')} {word}" for word, count in counts if count)
    if not said:
        return ""
    names = [f"{change.name} {change.change.value}" for change in difference.page.items]
    more = difference.page.total_count - len(names)
    return f": {said}: {', '.join([*names, *([f'{more:,} more'] if more > 0 else [])])}"


def stale_state(
    database: Database,
    name: str,
    freshness: timedelta,
    now: datetime,
    *,
    since: datetime | None,
    grace: timedelta = timedelta(0),
) -> MirrorState | None:
    """The state of the mirror ``name`` when it is older than ``freshness`` by more than ``grace``; else None.

    One that has never succeeded is counted from ``since``, or from the creation of its repository where that was
    earlier; None for an age that is not known.
    """
    return _stale(database, name, _repository(database, name), freshness, now, since=since, grace=grace)


def _repository(database: Database, name: str) -> Repository | None:
    try:
        return database.repositories.by_name(name)
    except RecordNotFound:
        return None


def _stale(
    database: Database,
    name: str,
    repository: Repository | None,
    freshness: timedelta | None,
    now: datetime,
    *,
    since: datetime | None,
    grace: timedelta = timedelta(0),
) -> MirrorState | None:
    """As :func:`stale_state`, with the mirror's ``repository`` at hand, None where there is none."""
    if freshness is None:
        return None
    last, began = None, since
    if repository is not None:
        last = database.runs.latest_settled(repository.id)
        began = min(repository.created_at, since or repository.created_at)
        if last is not None and last.finished_at is not None:
            began = last.finished_at
    if began is None or now - began <= freshness + grace:
        return None
    age, promised = format_duration((now - began).total_seconds()), format_duration(freshness.total_seconds())
    what = f"there was no successful sync for {age}" if last is None else f"the last successful sync ended {age} ago"
    return MirrorState(name, NotifiedOf.STALE, began.isoformat(), f"{what}, and {promised} is promised")
