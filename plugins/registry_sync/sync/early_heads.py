"""HEADs of tags that the latest version has, while the list of tags is on its way from a registry that is far away.

The list decides which tags there are, as it does without: the digest of a tag that it does not have is not used, and a
tag that was missing before it is requested again. A digest may be older than the list by the time that the list took,
as others are younger; the listing is as old as the first of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.registry_pace import HEAD_START_SECONDS
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.parallel import requests_at_once

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryClient
    from registry_sync.oci.http.many_heads import StartedRequest

#: So many are requested at most; the list has come before most of them, and the rest goes on after it.
MOST_EARLY = 1000


class EarlyHeads:
    """The HEADs of ``tags``, from a thread between ``with`` and its end, which waits for them.

    None is sent after an error, nor once one has a response other than a digest: the tags that are left are requested
    after the list. ``found`` has the digests, ``started`` what was sent and has no digest, to go on from.
    """

    def __init__(self, client: RegistryClient, remote: RemoteSpec, tags: list[TagName]) -> None:
        self._client, self._remote, self._tags = client, remote, tags
        self._is_stopped = False
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._request, name="early-heads", daemon=True)
        self.began_at: datetime = utc_now()
        self.found: dict[TagName, Digest] = {}
        self.started: dict[str, StartedRequest] = {}

    @classmethod
    def of(cls, client: RegistryClient, database: Database, run: SyncRun, remote: RemoteSpec) -> EarlyHeads | None:
        """Those of a sync that is expected to request as many tags as the last one; None where they might be needless.

        So they are where a registry lists digests, where the client would have to wait for a response before, and
        where a version keeps tags that the upstream has deleted.
        """
        pace = run.pace
        lists_digests = pace is not None and pace.lists_digests and remote.digest_list is not DigestList.OFF
        if pace is None or lists_digests or not client.may_request_early:
            return None
        if run.mode is not SyncMode.MIRROR or remote.tag_filter.literal_tags is not None:
            return None
        pinned, wants = remote.tag_filter.pinned, remote.tag_filter.wants
        names = database.versions.first_names(run.repository_id, MOST_EARLY)
        tags = [tag for tag in names if tag not in pinned and wants(tag)]
        return cls(client, remote, tags) if 1 < len(tags) <= pace.head_count else None

    def __enter__(self) -> EarlyHeads:
        self.began_at = utc_now()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopped = kind is not None
        self._thread.join()
        if kind is None and self._problem is not None and not isinstance(self._problem, RegistrySyncError):
            raise self._problem

    def keep_only(self, listed: Collection[TagName]) -> None:
        """Drops what is not ``listed``, and what was missing when it was requested, which is requested again."""
        present = set(listed)
        for tag in self.found.keys() - present:
            del self.found[tag]
        for name in [name for name, request in self.started.items() if request.status == 404 or name not in present]:
            self._client.drop_head(self.started.pop(name))

    def _request(self) -> None:
        most = requests_at_once(self._client, self._remote)
        try:
            time.sleep(HEAD_START_SECONDS)
            left = self._client.head_manifests(
                self._remote.upstream,
                self._tags,
                self.found.__setitem__,
                most=lambda: 0 if self._is_stopped else most(),
            )
            self.started = left.started
        except BaseException as problem:  # noqa: BLE001  raised in the caller's thread
            self._problem = problem


def begin_early(client: RegistryClient, database: Database, run: SyncRun, remote: RemoteSpec) -> EarlyHeads | None:
    """What a listing may do before it has a list: HEADs, or else connections for those that will follow it."""
    early = EarlyHeads.of(client, database, run, remote)
    if early is None and run.pace is not None:
        client.open_connections(run.pace.head_count)
    return early
