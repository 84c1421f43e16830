"""Syncs of many mirrors that find nothing to change: what they need, read at once, and their results, written at once.

An unchanged mirror costs a few requests. Read and written mirror by mirror, what is known of it and that nothing has
changed would cost more than they do. Nothing is recorded of such a sync before it has ended; where its mirror is not
any more as it was read, it is not recorded at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, Update, bindparam, func, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import in_batches, insert_or_keep, is_one_of, storable
from registry_sync.db.remotes import read_remote
from registry_sync.db.repositories import read_repository
from registry_sync.db.runs.fleet_results import replace_results
from registry_sync.db.runs.run_rows import read_run
from registry_sync.db.runs.selections import API_REMEMBERED
from registry_sync.db.serving_tables import distributions
from registry_sync.db.tables import (
    blobs,
    deleted_runs,
    manifests,
    remotes,
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    sync_runs,
    tags,
    version_holds,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import LinkKind, RunKey, RunState, SyncRun
from registry_sync.domain.settled_mirrors import RecordedSyncs, SettledMirror, UnchangedSync

#: A mirror with more tags is read by its own sync: what is known of it would fill the memory, and saves little.
MOST_TAGS = 500
MOST_MANIFESTS = 1000
_REASON_LENGTH = 1000


class UnchangedSyncStore:
    """Each method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def settled(self, keys: Mapping[str, RunKey]) -> dict[str, SettledMirror]:
        """The mirrors that are in order, by the name of the repository, of at most one batch of them.

        ``keys`` has the key of the run to come by the same name; all are of one DAG run. Left out are those of which a
        run with that key is recorded, those without a settled sync from a remote that still exists, with tags that are
        held, entries of an index that the registry did not have or bytes that are missing, and those of more than
        :data:`MOST_TAGS` tags, or of more than :data:`MOST_MANIFESTS` manifests whose referrers may be listed.
        """
        with self._transactions.reading() as connection:
            used = _used_scopes(connection, keys.values())
            wanted = [name for name, key in keys.items() if key.scope not in used]
            rows = _settled_repositories(connection, wanted)
            latest = _rows_by(connection, sync_runs.c.id, [row.settled_run_id for row in rows])
            sources = _rows_by(connection, remotes.c.id, [run.remote_id for run in latest.values() if run.remote_id])
            rows = [row for row in rows if row.settled_run_id in latest]
            rows = [row for row in rows if latest[row.settled_run_id].remote_id in sources]
            runs = {row.id: read_run(latest[row.settled_run_id]) for row in rows}
            left_out = (
                _incomplete(connection, list(runs))
                | _large(connection, list(runs), repository_tags, MOST_TAGS)
                | _without_bytes(connection, runs)
            )
            rows = [row for row in rows if row.id not in left_out]
            ids = [row.id for row in rows]
            found = _tags(connection, rows)
            published = _published(connection, ids)
            has_api = _has_api(connection, {row.id: latest[row.settled_run_id] for row in rows}, runs)
            listing = [id_ for id_ in ids if runs[id_].remote.include_referrers and has_api[id_] is not False]
            large = _large(connection, listing, repository_manifests, MOST_MANIFESTS)
            referrers = _referrers(connection, [id_ for id_ in listing if id_ not in large])
        return {
            row.name: SettledMirror(
                key=keys[row.name],
                repository=read_repository(row),
                remote=read_remote(sources[latest[row.settled_run_id].remote_id]),
                latest=runs[row.id],
                tags=found[row.id],
                listing_began=row.last_listing,
                has_referrers_api=has_api[row.id],
                referrers=referrers[row.id],
                is_private_at=published[row.id],
            )
            for row in rows
            if row.id not in large
        }

    def record(self, syncs: Sequence[UnchangedSync]) -> RecordedSyncs:
        """Records those whose mirror is as it was read, and holds all bytes that its policy requires, as unchanged.

        A run is stored as one that has settled, with the next number of a listing of its repository, and the result of
        its mirror in place of an earlier one.
        """
        by_repository = {sync.run.repository_id: sync for sync in syncs}
        with self._transactions.writing() as connection:
            locked = _locked(connection, sorted(by_repository))
            deleted = {sync.run.id for id_, sync in by_repository.items() if id_ not in locked}
            same = [by_repository[id_] for id_, row in locked.items() if _is_as_read(row, by_repository[id_])]
            lacking = _without_bytes(connection, {sync.run.repository_id: sync.run for sync in same})
            fit = _with_remotes(connection, [sync for sync in same if sync.run.repository_id not in lacking])
            stored = _insert_runs(connection, fit, locked)
            if stored:
                connection.execute(_SETTLED, [{"of": one.run.repository_id, "by": one.run.id} for one in stored])
                replace_results(connection, [one.result for one in stored])
        return RecordedSyncs(frozenset(one.run.id for one in stored), frozenset(deleted))


def _used_scopes(connection: Connection, keys: Iterable[RunKey]) -> set[str]:
    """The scopes of keys that have a run, or had one whose repository was deleted."""
    used: set[str] = set()
    scopes = defaultdict(list)
    for key in keys:
        scopes[key.dag_id, key.run_id].append(key.scope)
    for (dag_id, run_id), listed in scopes.items():
        for table in (sync_runs, deleted_runs):
            is_wanted = (table.c.dag_id == dag_id) & (table.c.run_id == run_id)
            of_run = select(table.c.scope).where(is_wanted, is_one_of(connection, table.c.scope, listed))
            used.update(connection.execute(of_run).scalars())
    return used


def _settled_repositories(connection: Connection, names: Sequence[str]) -> Sequence[Row[Any]]:
    """The repositories whose latest version is as a sync left it."""
    is_wanted = is_one_of(connection, repositories.c.name, names)
    is_settled = repositories.c.settled_version == repositories.c.latest_number
    return connection.execute(select(repositories).where(is_wanted, is_settled)).all()


def _rows_by(connection: Connection, key: Any, values: Iterable[str]) -> dict[str, Row[Any]]:
    """The rows of a table by their id."""
    found = connection.execute(select(key.table).where(is_one_of(connection, key, sorted(set(values)))))
    return {row.id: row for row in found}


def _incomplete(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those whose latest version holds tags back, or lacks entries of an index."""
    links, holds = repository_links.c, version_holds.c
    has_gap = links.version_removed.is_(None) & links.child_id.is_(None)
    of_gaps = select(links.repository_id).where(is_one_of(connection, links.repository_id, ids), has_gap)
    of_holds = (
        select(holds.repository_id)
        .join(repositories, repositories.c.id == holds.repository_id)
        .where(is_one_of(connection, holds.repository_id, ids), holds.number == repositories.c.latest_number)
    )
    return {found for statement in (of_gaps, of_holds) for found in connection.execute(statement).scalars()}


def _large(connection: Connection, ids: Sequence[str], table: Table, most: int) -> set[str]:
    """Those whose latest version has more than ``most`` members in ``table``."""
    if not ids:
        return set()
    members = table.c
    counted = (
        select(members.repository_id)
        .where(is_one_of(connection, members.repository_id, ids), members.version_removed.is_(None))
        .group_by(members.repository_id)
        .having(func.count() > most)
    )
    return set(connection.execute(counted).scalars())


def _tags(connection: Connection, rows: Sequence[Row[Any]]) -> Mapping[str, dict[TagName, Digest]]:
    """The tags of the latest versions."""
    members = repository_tags.c
    present = (
        select(members.repository_id, tags.c.name, manifests.c.digest)
        .join(repository_tags, members.tag_id == tags.c.id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .where(is_one_of(connection, members.repository_id, [row.id for row in rows]))
        .where(members.version_removed.is_(None))
        .order_by(members.repository_id, tags.c.name)
    )
    found: dict[str, dict[TagName, Digest]] = defaultdict(dict)
    for row in connection.execute(present):
        found[row.repository_id][TagName(row.name)] = Digest(row.digest)
    return found


def _published(connection: Connection, ids: Sequence[str]) -> Mapping[str, dict[str, bool]]:
    listed = select(distributions.c.repository_id, distributions.c.base_path, distributions.c.is_private)
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for row in connection.execute(listed.where(is_one_of(connection, distributions.c.repository_id, ids))):
        found[row.repository_id][row.base_path] = row.is_private
    return found


def _has_api(
    connection: Connection, rows: Mapping[str, Row[Any]], runs: Mapping[str, SyncRun]
) -> Mapping[str, bool | None]:
    """What recent syncs found of the referrers API, by the repository; None where they have not asked.

    Of syncs of the same remote while it had the same source as in ``runs``, whose ``rows`` are theirs. Where the last
    one has found it, as at each registry that has it, the others are not read: there are as many as syncs in a week.
    """
    run, since = sync_runs.c, utc_now() - API_REMEMBERED
    found = {id_: True if row.has_referrers_api and row.started_at > since else None for id_, row in rows.items()}
    others = [id_ for id_, has_api in found.items() if has_api is None]
    if not others:
        return found
    findings = (
        select(run.repository_id, run.remote_id, run.remote_spec, run.has_referrers_api)
        .where(is_one_of(connection, run.repository_id, others), run.started_at > since)
        .where(run.has_referrers_api.is_not(None))
    )
    for row in connection.execute(findings):
        latest = runs[row.repository_id]
        if (row.remote_id, RemoteSpec.of_document(row.remote_spec).source) == (latest.remote_id, latest.remote.source):
            found[row.repository_id] = bool(found[row.repository_id] or row.has_referrers_api)
    return found


def _referrers(connection: Connection, ids: Sequence[str]) -> Mapping[str, dict[Digest, frozenset[Digest]]]:
    """Every manifest of the latest versions, with those that are included as its referrers."""
    found: dict[str, dict[Digest, frozenset[Digest]]] = defaultdict(dict)
    if not ids:
        return found
    members, links = repository_manifests.c, repository_links.c
    linked = select(links.repository_id, links.parent_id, links.child_digest).where(
        is_one_of(connection, links.repository_id, ids),
        links.version_removed.is_(None),
        links.kind == LinkKind.REFERRER.value,
    )
    children: dict[tuple[str, int], set[Digest]] = defaultdict(set)
    for row in connection.execute(linked):
        children[row.repository_id, row.parent_id].add(Digest(row.child_digest))
    present = (
        select(members.repository_id, manifests.c.id, manifests.c.digest)
        .join(repository_manifests, members.manifest_id == manifests.c.id)
        .where(is_one_of(connection, members.repository_id, ids), members.version_removed.is_(None))
    )
    for row in connection.execute(present):
        found[row.repository_id][Digest(row.digest)] = frozenset(children.get((row.repository_id, row.id), ()))
    return found


def _locked(connection: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The rows of repositories that still exist, locked in the order of their ids until the transaction ends."""
    found: dict[str, Row[Any]] = {}
    columns = (
        repositories.c.id,
        repositories.c.latest_number,
        repositories.c.last_listing,
        repositories.c.settled_run_id,
        repositories.c.settled_version,
    )
    for batch in in_batches(ids):
        wanted = select(*columns).where(is_one_of(connection, repositories.c.id, batch)).order_by(repositories.c.id)
        found.update({row.id: row for row in connection.execute(wanted.with_for_update(key_share=True))})
    return found


def _is_as_read(row: Row[Any], sync: UnchangedSync) -> bool:
    """Whether no sync has listed, no version was made or deleted and nothing was rolled back since."""
    known = sync.known
    number = known.repository.latest_number
    return (row.last_listing, row.settled_run_id, row.latest_number, row.settled_version) == (
        known.listing_began,
        known.latest.id,
        number,
        number,
    )


def _without_bytes(connection: Connection, runs: Mapping[str, SyncRun]) -> set[str]:
    """The repositories whose latest version lacks bytes that the policy of their run requires.

    Starts from the few blobs that are missing anywhere.
    """
    missing = (
        select(repository_blobs.c.repository_id, blobs.c.is_foreign)
        .join(blobs, blobs.c.id == repository_blobs.c.blob_id)
        .where(blobs.c.stored_at.is_(None), repository_blobs.c.version_removed.is_(None))
        .distinct()
    )
    found: set[str] = set()
    for batch in in_batches([key for key, run in runs.items() if run.policy is Policy.IMMEDIATE]):
        of_these = missing.where(is_one_of(connection, repository_blobs.c.repository_id, batch))
        for row in connection.execute(of_these):
            if not row.is_foreign or runs[row.repository_id].remote.include_foreign_layers:
                found.add(row.repository_id)
    return found


def _with_remotes(connection: Connection, syncs: Sequence[UnchangedSync]) -> list[UnchangedSync]:
    """Those whose remote still exists, which stays until the transaction ends."""
    present: set[str] = set()
    for batch in in_batches(sorted({sync.known.remote.id for sync in syncs})):
        wanted = select(remotes.c.id).where(is_one_of(connection, remotes.c.id, batch)).order_by(remotes.c.id)
        present.update(connection.execute(wanted.with_for_update(read=True, key_share=True)).scalars())
    return [sync for sync in syncs if sync.known.remote.id in present]


def _insert_runs(
    connection: Connection, syncs: Sequence[UnchangedSync], locked: Mapping[str, Row[Any]]
) -> list[UnchangedSync]:
    """Inserts the runs, and returns those of which no other try has recorded one meanwhile."""
    if not syncs:
        return []
    finished_at = utc_now()
    values = [
        {
            **_run_values(sync),
            "finished_at": finished_at,
            "listing_number": locked[sync.run.repository_id].last_listing + 1,
        }
        for sync in syncs
    ]
    connection.execute(insert_or_keep(connection, sync_runs), values)
    present: set[str] = set()
    for batch in in_batches([sync.run.id for sync in syncs]):
        ids = select(sync_runs.c.id).where(is_one_of(connection, sync_runs.c.id, batch))
        present.update(connection.execute(ids).scalars())
    return [sync for sync in syncs if sync.run.id in present]


def _run_values(sync: UnchangedSync) -> dict[str, Any]:
    run, note = sync.run, sync.digest_list
    return {
        "id": run.id,
        **vars(run.key),
        "attempt": run.attempt,
        "repository_id": run.repository_id,
        "remote_id": run.remote_id,
        "mode": run.mode.value,
        "remote_spec": run.remote.document(),
        "state": RunState.UNCHANGED.value,
        "started_at": run.started_at,
        "listed_at": sync.listed_at,
        **vars(run.usage),
        **vars(run.counts),
        "digest_list": None if note.use is None else note.use.value,
        "listed_digest_count": note.tag_count,
        "digest_list_problem": None if note.problem is None else storable(note.problem, _REASON_LENGTH),
        "authority": run.authority.value,
        "may_replace_upstream": True,
        "listing_began": run.listing_began,
        "has_referrers_api": sync.has_referrers_api,
        "repository_name": run.repository_name,
        "triggered_by": None if run.triggered_by is None else storable(run.triggered_by, _REASON_LENGTH),
        "dag_run_started_at": sync.dag_run_started_at,
        "is_dag_run_over": False,
    }


def _settling() -> Update:
    row = repositories.c
    changed = {
        "last_listing": row.last_listing + 1,
        "settled_run_id": bindparam("by"),
        "settled_version": row.latest_number,
    }
    return update(repositories).where(row.id == bindparam("of")).values(**changed)


_SETTLED = _settling()
