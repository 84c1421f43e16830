"""What a remote allows a sync to do: how many tags may be held, and how many a mirror may lose."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from registry_sync.db.membership import Membership
from registry_sync.db.tables import repository_tags, run_tags
from registry_sync.domain.records import Hold, RemoteSpec
from registry_sync.domain.runs import COUNTED_TAG_STATES
from registry_sync.errors import TooManyHolds, TooManyRemovals

#: As many tags may go whatever share of the repository they are: a small one changes by large shares.
ALWAYS_REMOVABLE = 10
_SHOWN = 5


def refuse_too_many_holds(connection: Connection, run_id: str, remote: RemoteSpec, holds: Sequence[Hold]) -> None:
    """Raises :class:`TooManyHolds` when a larger share of the run's tags is held than its remote allows."""
    if remote.max_held_share is None or not holds:
        return
    wanted = run_tags.c.state.in_([state.value for state in COUNTED_TAG_STATES])
    count = select(func.count()).select_from(run_tags).where(run_tags.c.sync_run_id == run_id, wanted)
    total = connection.execute(count).scalar_one()
    if len(holds) > remote.max_held_share * total:
        raise TooManyHolds(
            f"{len(holds)} of {total} tags would be held, more than max_held_share {remote.max_held_share:g} of remote "
            f"{remote.name!r} allows, so no version was made: {first_holds(holds)}"
        )


def refuse_too_many_removals(membership: Membership, remote: RemoteSpec) -> None:
    """Raises :class:`TooManyRemovals` when a mirror would lose more tags than its remote allows."""
    if remote.max_removed_share is None and remote.max_removed_tags is None:
        return
    names = membership.connection.execute(membership.tags_to_lose()).scalars().all()
    if not names:
        return
    is_present = (repository_tags.c.repository_id == membership.repository_id) & (
        repository_tags.c.version_removed.is_(None)
    )
    count = select(func.count()).select_from(repository_tags).where(is_present)
    present = membership.connection.execute(count).scalar_one()
    limits = []
    if remote.max_removed_tags is not None and len(names) > remote.max_removed_tags:
        limits.append(f"max_removed_tags {remote.max_removed_tags}")
    if remote.max_removed_share is not None and len(names) > max(ALWAYS_REMOVABLE, remote.max_removed_share * present):
        limits.append(f"max_removed_share {remote.max_removed_share:g}")
    if limits:
        raise TooManyRemovals(
            f"{len(names)} of {present} tags are gone upstream or left out by the filters, more than "
            f"{' and '.join(limits)} of remote {remote.name!r} allows, so no version was made: "
            f"{', '.join(names[:_SHOWN])}{_more(len(names))}. If they are to go, approve the removals of this run"
        )


def first_holds(holds: Sequence[Hold]) -> str:
    """The first held tags with their reasons, and how many there are besides."""
    shown = "; ".join(f"{hold.tag}: {hold.reason}" for hold in holds[:_SHOWN])
    return f"{shown}{_more(len(holds))}"


def _more(count: int) -> str:
    return f"; and {count - _SHOWN} more" if count > _SHOWN else ""
