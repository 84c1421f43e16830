"""The order of listings: a late commit undoes no later listing; and the results of a listing's HEADs.

A sync records the repository's last number when it starts to list (``listing_began``), and takes the next one when its
listing is recorded (``listing_number``). A listing whose number is not above the ``listing_began`` of a sync had ended
before that sync started to list, so the sync has seen a later upstream. Any other listing may have seen a later one. A
rollback takes a number too. No clock is involved, and the numbers are kept with repositories and syncs, not with
versions, which can be deleted.

The result of a HEAD is kept with the time of its request. It serves the try after a failed one, as long as it is recent
and nothing else was listed for the repository since; a sync that restarts after a failure deletes it.

A commit is refused when it would change something that was determined differently since by

- a rollback;
- a mirror of the same upstream: it determines every tag;
- an additive sync of the same upstream: it determines the tags that are present and that its filters select.

So two additive syncs of different tags both count, whichever commits first, and a commit without changes is never
refused. Syncs of different upstreams into one repository do not affect each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, delete, or_, select, update

from registry_sync.db.content.closures import Direction, LinkRows, closure_of, is_in_version, is_present
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, insert_absent
from registry_sync.db.tables import (
    repositories,
    repository_links,
    repository_manifests,
    repository_tags,
    repository_versions,
    run_heads,
    sync_runs,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import SyncMode, VersionOriginKind
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CachedHead, RunState
from registry_sync.errors import RecordNotFound, VersionConflict


class CachedHeadStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def keep(
        self,
        run_id: str,
        heads: Mapping[TagName, Digest | None],
        asked_at: datetime,
        *,
        listing_began: int | None = None,
    ) -> None:
        """Records the digests from HEADs, None where the response had none; ``asked_at`` is when the first was sent.

        Existing records of a tag stay. Nothing is recorded when ``listing_began`` is not that of the run any
        more: another try has started to list.
        """
        if not heads:
            return
        with self._transactions.writing() as connection:
            number = connection.execute(select(sync_runs.c.listing_began).where(sync_runs.c.id == run_id)).scalar_one()
            if listing_began not in (None, number):
                return
            rows = (
                {
                    "sync_run_id": run_id,
                    "name": name,
                    "digest": heads[name],
                    "asked_at": asked_at,
                    "listing_began": number,
                }
                for name in sorted(heads)
            )
            insert_absent(connection, run_heads, rows)

    def since(self, run_id: str, earliest: datetime) -> dict[TagName, CachedHead]:
        """The results requested at ``earliest`` or later, if nothing was listed for the repository meanwhile."""
        with self._transactions.reading() as connection:
            return {
                TagName(row.name): CachedHead(Digest(row.digest) if row.digest else None, row.asked_at)
                for row in connection.execute(*_heads_since(run_id, earliest))
            }

    def forget(self, run_id: str) -> None:
        """Deletes the results of a run."""
        with self._transactions.writing() as connection:
            forget_heads(connection, run_id)


def forget_heads(connection: Connection, run_id: str) -> None:
    """As :meth:`CachedHeadStore.forget`, within the caller's transaction."""
    connection.execute(delete(run_heads).where(run_heads.c.sync_run_id == run_id))


@built_once
def latest_number_of(repository_id: str) -> Select[Any]:
    """The number of the latest version of a repository."""
    return select(repositories.c.latest_number).where(repositories.c.id == repository_id)


@built_once
def _last_listing(repository_id: str) -> Select[Any]:
    return select(repositories.c.last_listing).where(repositories.c.id == repository_id)


@built_once
def _next_listing(repository_id: str) -> Update:
    added = repositories.c.last_listing + 1
    return update(repositories).where(repositories.c.id == repository_id).values(last_listing=added)


@built_once
def _heads_since(run_id: str, earliest: datetime) -> Select[Any]:
    return (
        select(run_heads.c.name, run_heads.c.digest, run_heads.c.asked_at)
        .join(sync_runs, sync_runs.c.id == run_heads.c.sync_run_id)
        .where(run_heads.c.sync_run_id == run_id, run_heads.c.asked_at >= earliest)
        .where(run_heads.c.listing_began == sync_runs.c.listing_began)
    )


_SETTLED = [state.value for state in RunState if state.is_settled]


@built_once
def _settled_since(repository_id: str, listing_began: int, run_id: str) -> Select[Any]:
    """The rows of other settled syncs whose listing ended after ``listing_began``."""
    row = sync_runs.c
    of_others = (row.repository_id == repository_id, row.id != run_id)
    return select(sync_runs).where(*of_others, row.listing_number > listing_began, row.state.in_(_SETTLED))


def last_number(connection: Connection, repository_id: str) -> int:
    """The last number, 0 before the first. Raises :class:`RecordNotFound`."""
    number: int | None = connection.execute(*_last_listing(repository_id)).scalar_one_or_none()
    if number is None:
        raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
    return number


def take_number(connection: Connection, repository_id: str) -> int:
    """The next number; the repository's row is locked until the transaction ends. Raises :class:`RecordNotFound`."""
    connection.execute(*_next_listing(repository_id))
    return last_number(connection, repository_id)


def list_again(connection: Connection, run_id: str, number: int) -> None:
    """Lets a run list again after ``number``, which the caller has just taken; a rollback in between stays in force."""
    rolled_back = select(repositories.c.last_rollback).where(repositories.c.id == sync_runs.c.repository_id)
    may_see_later = (sync_runs.c.id == run_id) & (sync_runs.c.listing_began >= rolled_back.scalar_subquery())
    connection.execute(update(sync_runs).where(may_see_later).values(listing_began=number))


def record_rollback(connection: Connection, repository_id: str) -> None:
    """Prevents syncs that started to list before now from undoing the caller's rollback."""
    number = take_number(connection, repository_id)
    connection.execute(update(repositories).where(repositories.c.id == repository_id).values(last_rollback=number))


@dataclass(frozen=True)
class _Settled:
    """A settled sync that may have seen a later upstream."""

    spec: RemoteSpec
    is_mirror: bool
    version_number: int | None
    changed: frozenset[str]

    def has_the_say_of(self, names: Iterable[str], present: Set[str]) -> bool:
        """Whether it determines one of these tags; ``present`` are the tags of the latest version."""
        if self.is_mirror:
            return any(names)
        existing = [TagName(name) for name in names if name in present]
        return any(map(self.spec.tag_filter.wants, existing)) or not self.changed.isdisjoint(existing)


@dataclass(frozen=True)
class LaterSay:
    """The changes since a run started to list; ``number`` is the version that the run is about to make."""

    connection: Connection
    repository: Row[Any]
    number: int
    is_rolled_back: bool
    settled: Sequence[_Settled]

    @classmethod
    def since(cls, connection: Connection, repository: Row[Any], run: Row[Any], number: int) -> LaterSay:
        """Usually empty, at the cost of one query; the caller has locked ``repository``."""
        rows = connection.execute(*_settled_since(repository.id, run.listing_began, run.id)).all()
        own = RemoteSpec.of_document(run.remote_spec)
        settled = [
            _read_settled(connection, row, spec)
            for row, spec in ((row, RemoteSpec.of_document(row.remote_spec)) for row in rows)
            if spec.source == own.source or (row.remote_id is not None and row.remote_id == run.remote_id)
        ]
        return cls(connection, repository, number, repository.last_rollback > run.listing_began, settled)

    @property
    def is_nothing(self) -> bool:
        """Whether the run may change anything."""
        return not self.is_rolled_back and not self.settled

    def refuse_tags(self, names: Set[str]) -> None:
        """Raises :class:`VersionConflict` when a tag that the run is about to change was determined since."""
        if not names:
            return
        if self.is_rolled_back:
            raise self._rolled_back()
        present = set(self.connection.execute(self._present_names()).scalars())
        for sync in self.settled:
            if sync.has_the_say_of(names, present):
                raise self._later(sync)

    def refuse_links(self) -> None:
        """Raises :class:`VersionConflict` when the new version changes links that were determined since.

        These are the links from manifests that were present before. An additive sync keeps links that others add.
        """
        if self.is_nothing:
            return
        changed = self.connection.execute(self._changed_links()).all()
        if not changed:
            return
        if self.is_rolled_back:
            raise self._rolled_back()
        closed = {row.parent_id for row in changed if row.version_removed == self.number}
        above = self._tags_above(closed) if closed else set()
        for sync in self.settled:
            if sync.is_mirror or sync.has_the_say_of(above, above):
                raise self._later(sync)

    def _present_names(self) -> Select[Any]:
        return (
            select(tags.c.name)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(is_present(repository_tags, self.repository.id))
        )

    def _changed_links(self) -> Select[Any]:
        """Links added or removed below manifests that are in both versions."""
        links, members = repository_links.c, repository_manifests.c
        return (
            select(links.parent_id, links.version_removed)
            .join(repository_manifests, members.manifest_id == links.parent_id)
            .where(is_present(repository_manifests, self.repository.id), members.version_added < self.number)
            .where(links.repository_id == self.repository.id)
            .where(or_(links.version_added == self.number, links.version_removed == self.number))
        )

    def _tags_above(self, manifest_ids: Set[int]) -> set[str]:
        """Tags of the previous version from which links lead to one of these manifests."""
        before = self.repository.latest_number
        starts = select(repository_manifests.c.manifest_id).where(
            repository_manifests.c.repository_id == self.repository.id,
            repository_manifests.c.manifest_id.in_(sorted(manifest_ids)),
        )
        above = closure_of(starts, LinkRows.of_version(self.repository.id, before), Direction.UP)
        statement = (
            select(tags.c.name)
            .join(above, above.c.manifest_id == tags.c.manifest_id)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(is_in_version(repository_tags, self.repository.id, before))
        )
        return set(self.connection.execute(statement).scalars())

    def _rolled_back(self) -> VersionConflict:
        versions = repository_versions.c
        statement = (
            select(versions.number, versions.origin_number)
            .where(versions.repository_id == self.repository.id, versions.origin == VersionOriginKind.ROLLBACK.value)
            .order_by(versions.number.desc())
        )
        made = self.connection.execute(statement.limit(1)).first()
        which = f" to version {made.origin_number}" if made else ""
        what = f", which made version {made.number}" if made else ""
        return VersionConflict(
            f"{self.repository.name!r} was rolled back{which} after this sync started to list tags{what}; the rollback "
            "stands, and a new sync restores the upstream's state"
        )

    def _later(self, sync: _Settled) -> VersionConflict:
        found = "found nothing to change" if sync.version_number is None else f"made version {sync.version_number}"
        return VersionConflict(
            f"another sync of {sync.spec.source} listed the same tags later, or at the same time, and {found} of "
            f"{self.repository.name!r} meanwhile; its result stands, and a new sync fetches the upstream's state"
        )


def _read_settled(connection: Connection, row: Row[Any], spec: RemoteSpec) -> _Settled:
    changed: frozenset[str] = frozenset()
    if row.version_number is not None:
        number, members = row.version_number, repository_tags.c
        moved = (
            select(tags.c.name)
            .join(repository_tags, members.tag_id == tags.c.id)
            .where(members.repository_id == row.repository_id)
            .where(or_(members.version_added == number, members.version_removed == number))
        )
        changed = frozenset(connection.execute(moved).scalars())
    return _Settled(spec, row.mode == SyncMode.MIRROR.value, row.version_number, changed)
