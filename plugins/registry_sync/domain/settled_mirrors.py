"""What is known of many mirrors at once, and syncs of them that found nothing to change: values for a task of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from registry_sync.domain.digests import Digest
from registry_sync.domain.mirror_results import MirrorResult
from registry_sync.domain.records import Repository
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Remote
from registry_sync.domain.runs import DigestListUse, RunKey, SyncRun


@dataclass(frozen=True)
class SettledMirror:
    """A mirror whose latest version is as its last sync left it: nothing is held, no entry of an index is missing.

    ``key`` is that of the run to come, of which nothing is recorded yet. ``latest`` is the sync that settled last,
    ``remote`` the stored remote that it was of. ``tags`` are those of the latest version. ``listing_began`` is the
    repository's last number, as a run that starts now records it. ``has_referrers_api`` is what recent syncs found:
    True where one found it, False where none did, and None where none asked. ``referrers`` are those of each manifest
    of the latest version; empty where the registry has no such API, or they are not synced. ``is_private_at`` are the
    distributions of the repository by base path.
    """

    key: RunKey
    repository: Repository
    remote: Remote
    latest: SyncRun
    tags: Mapping[TagName, Digest]
    listing_began: int
    has_referrers_api: bool | None = None
    referrers: Mapping[Digest, frozenset[Digest]] = field(default_factory=dict)
    is_private_at: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class DigestListNote:
    """What a sync found of a registry's list of digests, see :class:`~registry_sync.domain.runs.DigestListUse`.

    ``use`` None: no list was read. ``tag_count`` tags were unchanged by it.
    """

    use: DigestListUse | None = None
    tag_count: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class UnchangedSync:
    """A sync that found a mirror as it was, and is yet to be recorded.

    ``run`` is as it will be stored, with its usage; ``known`` is what it started from. The upstream was listed at
    ``listed_at``. ``result`` is that of the mirror in its task. ``has_referrers_api`` is whether the registry was found
    to have the referrers API, None where it was not asked.
    """

    run: SyncRun
    known: SettledMirror
    listed_at: datetime
    result: MirrorResult
    dag_run_started_at: datetime | None = None
    digest_list: DigestListNote = field(default_factory=DigestListNote)
    has_referrers_api: bool | None = None


@dataclass(frozen=True)
class RecordedSyncs:
    """What became of syncs that were to be recorded, by the id of the run.

    Neither ``recorded`` nor ``deleted`` is one whose mirror has changed meanwhile, by another sync or a user: it is to
    be synced as any other. The repository of a ``deleted`` one is gone.
    """

    recorded: frozenset[str]
    deleted: frozenset[str]
