"""Which tags are read again although they have not moved, and which are left out though they are new.

A tag that stands for the same manifest as in the latest version may still bring something else: when the remote now
chooses otherwise, when an entry was missing upstream and may have come, when something new refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import Manifest
from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import SyncRun
from registry_sync.errors import ContentError, RegistrySyncError
from registry_sync.sync.choice import Choice
from registry_sync.sync.ports import Database, RegistryClient
from registry_sync.sync.referrers import EarlierRuns, list_referrers, tell_unknown
from registry_sync.sync.verdicts import Verdict, verdict


def tags_left_out(database: Database, choice: Choice, digests: Mapping[TagName, Digest | None]) -> set[TagName]:
    """Those of the tags that stand for an index, known already, without any wanted platform."""
    if choice.platforms is None:
        return set()
    known = database.contents.stored_manifests(digest for digest in digests.values() if digest is not None)
    left_out = {digest for digest, manifest in known.items() if manifest.index and _leaves_out(choice, manifest.index)}
    return {tag for tag, digest in digests.items() if digest in left_out}


def _leaves_out(choice: Choice, index: Manifest) -> bool:
    try:
        return choice.leaves_out(index)
    except ContentError:  # held, with this reason, by who reads it
        return False


def tags_to_read_again(
    client: RegistryClient,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    unchanged: Mapping[TagName, Digest],
    *,
    tell: Callable[[str], None],
) -> set[TagName]:
    """Those of ``unchanged`` of which more is to be known than their digest."""
    if not unchanged:
        return set()
    selections, choice = database.selections, Choice.of(remote)
    chosen_by = selections.chosen_by(run.repository_id, run.mode)
    if chosen_by is None or Choice.of(chosen_by) != choice:
        tell("what is taken along from the tags was chosen otherwise before, so all of them are read again")
        return set(unchanged)
    again = selections.tags_above_gaps(run.repository_id) | selections.held_tags(run.repository_id)
    again &= unchanged.keys()
    if choice.with_referrers:
        changed = _with_other_referrers(client, database, run, remote, tell)
        if changed:
            tell(f"{format_count(len(changed), 'manifest')} with other referrers than before")
            again |= selections.tags_above(run.repository_id, changed) & unchanged.keys()
    return again


def _with_other_referrers(
    client: RegistryClient, database: Database, run: SyncRun, remote: RemoteSpec, tell: Callable[[str], None]
) -> set[Digest]:
    """Manifests of the latest version to which the registry lists other referrers than it holds."""
    selections = database.selections
    if selections.lacks_referrers_api(run.id):
        return set()
    held = selections.referrers(run.repository_id)
    unreadable: set[Digest] = set()

    def failed(subject: Digest, error: RegistrySyncError) -> None:
        # Only what a later try cannot mend is left to the tag's own fetch, which holds it with the reason.
        if verdict(error, is_last_try=False) is not Verdict.HOLD:
            raise error
        unreadable.add(subject)

    listed = list_referrers(client, remote, held, earlier=EarlierRuns(selections, run), failed=failed)
    if listed.has_api is not None:
        selections.note_referrers_api(run.id, is_there=listed.has_api)
    tell_unknown(selections, run, listed, tell)
    if listed.has_api is False:
        return set()
    other = {s for s, entries in listed.found.items() if {entry.digest for entry in entries} != held[s]}
    return other | unreadable
