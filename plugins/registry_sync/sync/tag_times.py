"""Since when the listed tags are known, for rules that select by age or the newest: by our history, or by pushes.

Our history is written down at each listing: also tags that no rule selects have a first sight, and are not new when
they are seen again. When tags were pushed is in a registry's list of digests, or nowhere; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from registry_sync.domain.known_registries import DIGEST_APIS, DigestList
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import SyncRun
from registry_sync.domain.tag_rules import TagOrder, TagTimes
from registry_sync.errors import ConfigurationError, ServerUnavailable

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader
    from registry_sync.oci.tags import TagListing

#: A list of pushes is read whole, however many pages it has.
_MOST_REQUESTS = 10_000


def tag_times(
    client: RegistryReader, database: Database, run: SyncRun, remote: RemoteSpec, listing: TagListing
) -> TagTimes:
    """The times that the rules of ``remote`` need; a first sight is recorded.

    Raises :class:`ConfigurationError` where the registry does not list when tags were pushed, and
    :class:`ServerUnavailable` where it did not this time.
    """
    order, now = remote.tag_filter.needed_times, utc_now()
    if order is TagOrder.FIRST_SEEN:
        return TagTimes(first_seen_at=database.seen_tags.record(run.repository_id, listing.tags, now), now=now)
    if order is TagOrder.PUSHED:
        return TagTimes(pushed_at=_pushed(client, remote, listing), now=now)
    return TagTimes(now=now)


def _pushed(client: RegistryReader, remote: RemoteSpec, listing: TagListing) -> Mapping[TagName, datetime]:
    if listing.pushed_at or not listing.tags:
        return listing.pushed_at
    listed = client.list_tag_digests(remote.upstream, frozenset(listing.tags), most_requests=_MOST_REQUESTS)
    if listed is not None and listed.problem is not None and not listed.is_lasting:
        raise ServerUnavailable(
            f"order is pushed, and {remote.url.netloc} could not list when tags were pushed: {listed.problem}",
            host=remote.url.netloc,
        )
    if listed is None or not listed.pushed_at:
        why = "" if listed is None or listed.problem is None else f": {listed.problem}"
        raise ConfigurationError(
            f"order is pushed, and {remote.url.netloc} does not list when its tags were pushed{why}. {_advice(remote)}"
        )
    return listed.pushed_at


def _advice(remote: RemoteSpec) -> str:
    if remote.digest_list is DigestList.OFF:
        return "digest_list is off, which is where it would be: let it be auto, or use another order"
    known = ", ".join(source.value for source, api in DIGEST_APIS.items() if api.pushed is not None)
    return f"Name its API as digest_list ({known}), or use another order: version, first_seen or name"
