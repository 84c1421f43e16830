"""The commit of a run: a new version of its repository in one transaction, or none when nothing differs.

The repository's row is locked first, so that commits to one repository follow each other and numbers have no gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, case, exists, insert, select, update

from registry_sync.db.content.closures import hold_new_tags, hold_tags, is_in_latest, is_present, tags_lacking_blobs
from registry_sync.db.queries import built_once, in_batches, storable
from registry_sync.db.remotes import refuse_corrected
from registry_sync.db.runs.listings import LaterSay
from registry_sync.db.runs.required_blobs import refuse_unfinished
from registry_sync.db.runs.run_rows import lock_run, refuse_ended, refuse_other_remote, require_run, settle
from registry_sync.db.runs.unchanged_tags import record_each, record_some
from registry_sync.db.tables import (
    manifests,
    repositories,
    repository_tags,
    repository_versions,
    run_tags,
    sync_runs,
    tags,
    version_holds,
)
from registry_sync.db.versions.membership import Difference, Membership
from registry_sync.db.versions.removal_guard import (
    TagsToRemove,
    first_holds,
    refuse_too_few_tags,
    refuse_too_many_holds,
    settle_filtered,
)
from registry_sync.db.versions.version_rows import keep_newest
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.domain.records import SYNCED, Hold, SyncMode, VersionOrigin
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import RunState, TagState
from registry_sync.errors import ApprovalRequired, NothingSynced, RecordNotFound

_KINDS = ("tags", "manifests", "blobs")
_APPROVAL = (sync_runs.c.removals_approved_by, sync_runs.c.removals_approved_at)


def lock_repository(connection: Connection, repository_id: str) -> Row[Any]:
    """The repository's row, locked until the transaction ends. Raises :class:`RecordNotFound`."""
    row = connection.execute(*_locked(repository_id)).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
    return row


@built_once
def _locked(repository_id: str) -> Select[Any]:
    return select(repositories).where(repositories.c.id == repository_id).with_for_update(key_share=True)


def next_number(repository: Row[Any]) -> int:
    """The number of the next version; numbers of deleted versions are not reused."""
    return int(repository.last_number or 0) + 1


def add_version(
    connection: Connection,
    repository: Row[Any],
    difference: Difference,
    *,
    origin: VersionOrigin = SYNCED,
    sync_run_id: str | None = None,
    holds: Sequence[Hold] = (),
    description: str | None = None,
    referrers_problem: str | None = None,
) -> int:
    """Records :func:`next_number` as the latest version of ``repository``, whose intervals already say so; its number.

    ``difference`` is the difference to the version that was the latest until now. Versions beyond those that the
    repository retains are removed.
    """
    base: int | None = repository.latest_number
    number = next_number(repository)
    identity = {"repository_id": repository.id, "number": number}
    values: dict[str, Any] = {
        "base_number": base,
        "sync_run_id": sync_run_id,
        "created_at": utc_now(),
        "description": None if description is None else storable(description),
        "labels": {},
        "origin": origin.kind.value,
        "origin_repository_id": origin.repository_id,
        "origin_number": origin.number,
        "referrers_problem": referrers_problem,
        "created_by": None if origin.created_by is None else storable(origin.created_by),
    }
    counts = _counts(connection, repository.id, base, difference)
    connection.execute(_INSERT_VERSION, {**identity, **values, **counts})
    held = [{**identity, "tag": hold.tag, "digest": hold.digest, "reason": hold.reason} for hold in holds]
    for batch in in_batches(held):
        connection.execute(insert(version_holds), batch)
    numbers = {"latest_number": number, "last_number": number}
    statement, of_repository = _numbered(repository.id)
    connection.execute(statement, {**numbers, **of_repository})
    keep_newest(connection, repository.id, repository.retain_versions, committing=sync_run_id)
    return number


_INSERT_VERSION = insert(repository_versions)


@built_once
def _numbered(repository_id: str) -> Update:
    """Sets the numbers of versions that are given at its execution."""
    return update(repositories).where(repositories.c.id == repository_id)


def _counts(connection: Connection, repository_id: str, base: int | None, difference: Difference) -> dict[str, int]:
    present = dict.fromkeys(_KINDS, 0)
    if base is not None:
        row = connection.execute(*_version(repository_id, base)).one()
        present = {kind: getattr(row, f"{kind}_present") for kind in _KINDS}
    counts: dict[str, int] = {}
    for kind in _KINDS:
        counts[f"{kind}_added"] = difference.added[kind]
        counts[f"{kind}_removed"] = difference.removed[kind]
        counts[f"{kind}_present"] = present[kind] + difference.added[kind] - difference.removed[kind]
    return counts


@built_once
def _version(repository_id: str, number: int) -> Select[Any]:
    versions = repository_versions.c
    return select(repository_versions).where(versions.repository_id == repository_id, versions.number == number)


def commit_run(connection: Connection, run_id: str) -> tuple[str, int | None]:
    """The repository, and the number of the version that the run makes or made; None when nothing differs.

    Raises :class:`NothingSynced` when nothing differs because tags are held, or when a filter excludes everything;
    :class:`VersionConflict` when it would undo a later listing or a rollback (see
    :mod:`~registry_sync.db.runs.listings`); :class:`OtherUpstream` when it may not replace content that another remote
    added since the run started; :class:`TooManyHolds` or :class:`ApprovalRequired` by the remote's limits;
    :class:`StagesUnfinished` when something was listed or planned and no task processed it; :class:`RunEnded` when the
    DAG run has ended; :class:`RecordNotFound` for an unknown run. Everything happens in the caller's transaction.
    """
    repository = lock_repository(connection, require_run(connection, run_id).repository_id)
    # Locked, so that no garbage collection releases the run's records before they are in the version.
    run = lock_run(connection, run_id)
    if RunState(run.state).is_settled:
        return repository.id, run.version_number
    refuse_ended(run)
    refuse_other_remote(connection, run)
    if run.base_number not in (None, repository.latest_number):
        record_each(connection, sync_runs.c.id == run_id)
        run = lock_run(connection, run_id)
    remote = RemoteSpec.of_document(run.remote_spec)
    refuse_corrected(connection, run.remote_id, remote)
    refuse_unfinished(connection, run_id)
    membership = _membership(connection, run, repository)
    later = LaterSay.since(connection, repository, run, membership.number)
    connection.execute(*_hold_unfetched(run_id))
    changed_meanwhile = _hold_changed_meanwhile(connection, run)
    settle_filtered(connection, run, remote)
    if remote.policy is Policy.IMMEDIATE:
        hold_new_tags(connection, run_id, with_foreign=remote.include_foreign_layers)
    if not later.is_nothing:
        later.refuse_tags(changed_meanwhile | membership.tags_to_change())
    holds = _holds(connection, membership)
    removals = TagsToRemove.of(membership, remote, repository.latest_number) if membership.is_mirror else None
    difference = membership.apply()
    later.refuse_links()

    def refuse() -> None:
        if removals is not None:
            removals.refuse_too_many(difference)
        if not difference.is_empty:
            refuse_too_few_tags(membership, remote, difference)

    _refuse_unapproved(connection, run, refuse)
    _update_leftovers(connection, membership, difference)
    if remote.policy is Policy.IMMEDIATE:
        holds = _with_kept_tags(connection, run, remote, holds)
    refuse_too_many_holds(connection, run_id, remote, holds)
    if difference.is_empty:
        if holds:
            are_held = f"{format_count(len(holds), 'tag')} {'is' if len(holds) == 1 else 'are'} held"
            raise NothingSynced(f"nothing was synced, {are_held}: {first_holds(holds)}")
        if repository.latest_number is None:
            raise NothingSynced(
                f"every tag that {remote.source} listed was gone when it was fetched; no version was made"
            )
        settle(connection, run_id, RunState.UNCHANGED)
        return repository.id, None
    number = add_version(
        connection,
        repository,
        difference,
        origin=VersionOrigin(created_by=run.triggered_by),
        sync_run_id=run.id,
        holds=holds,
        referrers_problem=run.referrers_problem,
    )
    settle(connection, run_id, RunState.COMPLETED, version_number=number)
    return repository.id, number


def record_refusal(connection: Connection, run_id: str, refused: ApprovalRequired) -> None:
    """Records the refused tags, to which an approval of the run refers; drops an approval of others."""
    is_open = (sync_runs.c.id == run_id) & sync_runs.c.state.not_in([s.value for s in RunState if s.is_settled])
    is_for_these = sync_runs.c.refused_removals == refused.fingerprint
    refusal = {
        "refused_removals": refused.fingerprint,
        **{column.name: case((is_for_these, column)) for column in _APPROVAL},
    }
    connection.execute(update(sync_runs).where(is_open).values(**refusal))


def _refuse_unapproved(connection: Connection, run: Row[Any], refuse: Callable[[], None]) -> None:
    """Keeps an approval with the run only where ``refuse`` needs it: it records who approved.

    An approval that was given after a refusal covers exactly the tags that were refused then.
    """
    try:
        refuse()
    except ApprovalRequired as refused:
        if run.removals_approved_by is None:
            raise
        if run.refused_removals in (None, refused.fingerprint):
            return
        raise refused.with_message(f"{run.removals_approved_by} approved {refused.other}: {refused}") from None
    if run.removals_approved_by is not None:
        is_unused = dict.fromkeys((column.name for column in _APPROVAL), None)
        connection.execute(update(sync_runs).where(sync_runs.c.id == run.id).values(**is_unused))


def _membership(connection: Connection, run: Row[Any], repository: Row[Any]) -> Membership:
    return Membership(
        connection=connection,
        repository_id=repository.id,
        run_id=run.id,
        number=next_number(repository),
        is_mirror=run.mode == SyncMode.MIRROR.value,
        is_difference=run.base_number is not None,
        has_leftovers=repository.has_leftovers,
    )


@built_once
def _hold_unfetched(run_id: str) -> Update:
    """Holds tags whose manifest is not stored."""
    is_stored = exists().where(manifests.c.digest == run_tags.c.digest)
    in_run = run_tags.c.sync_run_id == run_id
    return (
        update(run_tags)
        .where(in_run, run_tags.c.state.in_([TagState.RESOLVED.value, TagState.UNCHANGED.value]), ~is_stored)
        .values(state=TagState.HELD.value, reason="the manifest of the tag was not stored")
    )


def _hold_changed_meanwhile(connection: Connection, run: Row[Any]) -> set[str]:
    """Holds, and returns, tags that the run found unchanged and that the latest version no longer has.

    A version was deleted, or made from another one, since the tags were listed. The run did not read these tags, so the
    content below them is unknown.
    """
    found = connection.execute(*_found_unchanged(run.id)).scalars().all()
    if not found:  # the listing is recorded as a difference to the latest version, or is of new tags alone
        return set()
    gone = set(found) - set(connection.execute(*_unchanged_and_present(run.id, run.repository_id)).scalars())
    for batch in in_batches(sorted(gone)):
        connection.execute(
            update(run_tags)
            .where(run_tags.c.sync_run_id == run.id, run_tags.c.name.in_(batch))
            .values(state=TagState.HELD.value, reason="the repository was changed after the tag was found unchanged")
        )
    return gone


@built_once
def _found_unchanged(run_id: str) -> Select[Any]:
    is_unchanged = run_tags.c.state == TagState.UNCHANGED.value
    return select(run_tags.c.name).where(run_tags.c.sync_run_id == run_id, is_unchanged)


@built_once
def _unchanged_and_present(run_id: str, repository_id: str) -> Select[Any]:
    is_unchanged = (run_tags.c.sync_run_id == run_id) & (run_tags.c.state == TagState.UNCHANGED.value)
    return (
        select(run_tags.c.name)
        .join(tags, tags.c.name == run_tags.c.name)
        .join(manifests, (manifests.c.id == tags.c.manifest_id) & (manifests.c.digest == run_tags.c.digest))
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_unchanged, is_present(repository_tags, repository_id))
    )


def _holds(connection: Connection, membership: Membership) -> list[Hold]:
    """The held tags by name; each keeps the digest that it has in the latest version, if any."""
    return [
        Hold(TagName(row.name), None if row.digest is None else Digest(row.digest), row.reason or "")
        for row in connection.execute(*_held_tags(membership.run_id, membership.repository_id))
    ]


@built_once
def _held_tags(run_id: str, repository_id: str) -> Select[Any]:
    kept = (
        select(manifests.c.digest)
        .join(tags, tags.c.manifest_id == manifests.c.id)
        .where(tags.c.name == run_tags.c.name, is_in_latest("tags", tags.c.id, repository_id))
        .scalar_subquery()
    )
    return (
        select(run_tags.c.name, kept.label("digest"), run_tags.c.reason)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.HELD.value)
        .order_by(run_tags.c.name)
    )


def _with_kept_tags(connection: Connection, run: Row[Any], remote: RemoteSpec, holds: list[Hold]) -> list[Hold]:
    """``holds``, and one for each other tag of the version whose bytes are not all stored.

    This includes unchanged tags and tags that are kept though they are gone upstream: their bytes may have been
    reclaimed, and the upstream may not have them any more.
    """
    held = {hold.tag for hold in holds}
    with_foreign = remote.include_foreign_layers
    lacking = tags_lacking_blobs(connection, run.repository_id, with_foreign=with_foreign, run_id=run.id)
    added = [hold for hold in lacking if hold.tag not in held]
    record_some(connection, run.id, (hold.tag for hold in added))
    hold_tags(connection, run.id, {hold.tag: hold.reason for hold in added})
    return sorted([*holds, *added], key=lambda hold: hold.tag)


def _update_leftovers(connection: Connection, membership: Membership, difference: Difference) -> None:
    """An additive sync that removed a tag may leave its manifest behind; a mirror has just removed such leftovers."""
    has_leftovers = not membership.is_mirror and (membership.has_leftovers or difference.removed["tags"] > 0)
    if has_leftovers != membership.has_leftovers:
        connection.execute(
            update(repositories)
            .where(repositories.c.id == membership.repository_id)
            .values(has_leftovers=has_leftovers)
        )
