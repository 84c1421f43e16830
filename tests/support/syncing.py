"""A whole sync in this process, stage by stage, for tests of breadth: a real store and database, and a
registry that is real or in memory; no Airflow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.domain.records import RepositoryVersion
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CommitResult, RunKey, SyncRun
from registry_sync.domain.sync_plans import SyncPlan
from registry_sync.hooks.stores import open_blob_store
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient, RegistryReader
from registry_sync.oci.http.options import ClientOptions
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.dry_run import plan_sync, planned_names
from registry_sync.sync.fetch_blobs import fetch_blobs
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import TagsListed, list_tags
from registry_sync.sync.listed_content import ContentFetched, fetch_listed
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import plan_blobs
from support.memory_client import MemoryClient
from support.memory_registry import running_at
from support.ready_databases import ready_database

_numbers = itertools.count(1)


def new_client(
    remote: RemoteSpec, credentials: Credentials | None = None, **options: Any
) -> RegistryClient | MemoryClient:
    """A client with short waits, so that tests of failures are quick; in memory where the registry is."""
    chosen: dict[str, Any] = {
        "concurrency": remote.download_concurrency,
        "max_attempts": 2,
        "longest_wait_seconds": 0.2,
        "allow_insecure_credentials": True,
        "follow_foreign_urls": remote.include_foreign_layers,
    }
    known = ClientOptions(**(chosen | options))
    if (registry := running_at(str(remote.url))) is not None:
        return registry.client(credentials, known)
    return RegistryClient(remote.url, credentials, known)


#: Opens the registry of a remote.
OpenClient = Callable[[RemoteSpec], AbstractContextManager[RegistryReader]]


class Lines(list[str]):
    """All reports of stages; warnings also separately."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def __call__(self, line: str) -> None:
        self.append(line)

    def warning(self, line: str) -> None:
        self.append(line)
        self.warnings.append(line)


@dataclass
class Installation:
    """One installation's database and blob store; ``lines`` is everything the stages reported.

    With ``has_tasks`` each shard of manifests has a client of its own, as in tasks.
    """

    database: Database
    store: BlobStore
    lines: Lines = field(default_factory=Lines)
    max_shards: int = 3
    min_shard_bytes: int = 16 * 1024 * 1024
    has_tasks: bool = False

    def fetch_listed(
        self, run: SyncRun, *, min_shard_bytes: int, max_shards: int = 1, **options: Any
    ) -> ContentFetched:
        """What the first task of a small sync does: lists, and goes on to fetch with the same client."""
        with new_client(run.remote) as client:
            least: dict[str, Any] = {"min_shard_bytes": min_shard_bytes, "report": self.lines}
            listed = list_tags(client, self.database, run, run.remote, max_shards=max_shards, **least)
            work = (client, self.store, self.database, run, run.remote)
            return fetch_listed(*work, shard_count=len(listed.shards), **(least | options))

    @classmethod
    def embedded(cls, folder: Path) -> Installation:
        """SQLite and local files below ``folder``."""
        return cls.on(ready_database(folder / "registry_sync.db"), folder)

    @classmethod
    def on(cls, database: Database, folder: Path) -> Installation:
        """``database``, and local files below ``folder``."""
        return cls(database, open_blob_store((folder / "blobs").as_uri()))

    def sync(
        self,
        repository: str,
        url: str,
        upstream_name: str,
        *,
        run_id: str | None = None,
        credentials: Credentials | None = None,
        is_last_try: bool = False,
        client: OpenClient | None = None,
        before: Callable[[str, SyncRun], None] | None = None,
        **request: Any,
    ) -> RepositoryVersion | None:
        """The version that a sync made, None when nothing changed. ``before`` is called with each stage's name."""
        result = self.run(
            SyncRequest(repository=repository, url=url, upstream_name=upstream_name, **request),
            run_id=run_id or f"run-{next(_numbers)}",
            client=client or (lambda remote: new_client(remote, credentials)),
            is_last_try=is_last_try,
            before=before,
        )
        return result.version if result else None

    def run(
        self,
        request: SyncRequest,
        *,
        run_id: str,
        client: OpenClient,
        is_last_try: bool = False,
        before: Callable[[str, SyncRun], None] | None = None,
    ) -> CommitResult | None:
        """Every stage in order, each with what the one before recorded; None when the listing found nothing changed."""
        before = before or (lambda _stage, _run: None)
        report = self.lines
        run = open_run(self.database, RunKey("registry_sync", run_id), request)
        remote = run.remote
        assert remote is not None
        with client(remote) as registry:
            before("list_tags", run)
            listed: TagsListed = list_tags(
                registry, self.database, run, remote, max_shards=self.max_shards, report=report
            )
            if listed.is_unchanged:
                return None
            before("fetch_manifests", run)
            for shard in listed.shards:
                with client(remote) if self.has_tasks else nullcontext(registry) as of_shard:
                    fetch_manifests(
                        of_shard, self.database, run, remote, shard=shard.number, is_last_try=is_last_try, report=report
                    )
            before("plan_blobs", run)
            planned = plan_blobs(
                self.store,
                self.database,
                run,
                max_shards=self.max_shards,
                min_shard_bytes=self.min_shard_bytes,
                report=report,
            )
            before("fetch_blobs", run)
            for blobs in planned.shards:
                fetch_blobs(
                    registry,
                    self.store,
                    self.database,
                    run,
                    remote,
                    shard=blobs.number,
                    is_last_try=is_last_try,
                    report=report,
                )
        before("commit_version", run)
        return commit_version(self.database, run, report=report)

    def plan(self, request: SyncRequest, *, client: OpenClient = new_client, is_last_try: bool = False) -> SyncPlan:
        """What :meth:`run` would do for ``request``."""
        key = RunKey("registry_sync", f"dry-run-{next(_numbers)}")

        @contextmanager
        def connect(remote: RemoteSpec) -> Iterator[tuple[RegistryReader, RemoteSpec]]:
            with client(remote) as registry:
                yield registry, remote

        with self.database.copied_for_sync(planned_names(request)) as copy:
            return plan_sync(
                copy,
                self.store,
                lambda database: open_run(database, key, request),
                connect,
                is_last_try=is_last_try,
                report=self.lines,
            )
