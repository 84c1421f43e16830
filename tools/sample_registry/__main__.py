"""``python -m sample_registry FOLDER PORT``: serves the sample until standard input ends.

The metadata database and the blobs of the served repository are made in ``FOLDER``. Standard input is a pipe of the
program that started this one, so that nothing is left when that one is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence, Set
from datetime import datetime, timezone
from pathlib import Path

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, read_manifest
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunKey
from registry_sync.domain.serving import DistributionSpec
from registry_sync.hooks.stores import open_blob_store
from registry_sync.oci.blobs import BlobDestination
from registry_sync.oci.http.many_heads import HeadsLeft, StartedRequest
from registry_sync.oci.http.rate_limits import Usage
from registry_sync.oci.manifests import ManifestHead
from registry_sync.oci.tags import TagListing
from registry_sync.serve.server import ServerOptions, serve
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_blobs
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import plan_blobs
from sample_registry.content import SampleContent, sample_content

NAME = "sample/hello-world"
_NOWHERE = "https://sample.invalid"


class SampleReader:
    """Reads ``content`` as a registry's client does, without a registry."""

    def __init__(self, content: SampleContent) -> None:
        self.usage = Usage()
        self._content = content

    @property
    def requests_at_once(self) -> int:
        """One, as nothing is waited for."""
        return 1

    def list_tags(self, _repository: RepositoryName) -> TagListing:
        """Every tag, on one page."""
        return TagListing(tuple(sorted(map(TagName, self._content.tags))), (), datetime.now(timezone.utc), 1)

    @property
    def may_list_digests(self) -> bool:
        """No."""
        return False

    def list_tag_digests(self, _repository: RepositoryName, _tags: Set[TagName], *, most_requests: int) -> None:
        """No digests of all tags at once."""
        del most_requests

    def head_manifests(
        self,
        _repository: RepositoryName,
        tags: Sequence[TagName],
        _done: Callable[[TagName, Digest], None],
        *,
        most: Callable[[], int],
    ) -> HeadsLeft:
        """All of them are left."""
        del most
        return HeadsLeft(waiting=deque(tags))

    def head_manifest(
        self, _repository: RepositoryName, reference: TagName | Digest, *, started: StartedRequest | None = None
    ) -> ManifestHead:
        """Digest, type and size of a manifest."""
        del started
        digest = self._digest(reference)
        media_type, data = self._content.manifests[digest]
        return ManifestHead(digest, media_type, len(data))

    def get_manifest(
        self, _repository: RepositoryName, reference: TagName | Digest, *, expected: Descriptor | None = None
    ) -> Manifest:
        """A manifest."""
        media_type, data = self._content.manifests[self._digest(reference)]
        return read_manifest(data, content_type=media_type, expected=expected)

    def fetch_blob(self, _repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int:
        """Writes a blob."""
        data = self._content.blobs[blob.digest]
        writer.write(data)
        writer.commit()
        return len(data)

    def list_referrers(self, _repository: RepositoryName, _subject: Digest) -> tuple[Descriptor, ...]:
        """Nothing refers to anything here."""
        return ()

    def list_referrers_by_api(
        self, _repository: RepositoryName, _subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...]:
        """Nor by the API."""
        del is_known
        return ()

    def _digest(self, reference: TagName | Digest) -> Digest:
        return reference if isinstance(reference, Digest) else self._content.tags[reference]


def fill(folder: Path) -> ServerOptions:
    """Puts the sample into a database and a store in ``folder`` by the stages of a sync; what serves them."""
    options = ServerOptions(f"sqlite:///{folder / 'registry_sync.db'}", (folder / "blobs").as_uri(), workers=1)
    database, store = Database.connect(options.sql_alchemy_conn), open_blob_store(options.blob_store)
    database.ready()
    request = SyncRequest(repository=NAME, url=_NOWHERE, upstream_name=NAME)
    run = open_run(database, RunKey("sample", "sample"), request)
    registry, remote = SampleReader(sample_content()), run.remote or RemoteSpec.parse(NAME, _NOWHERE, NAME)
    for shard in list_tags(registry, database, run, remote, max_shards=1, report=_Silent()).shards:
        fetch_manifests(registry, database, run, remote, shard=shard.number, is_last_try=True, report=_Silent())
    planned = plan_blobs(store, database, run, max_shards=1, min_shard_bytes=1 << 30, report=_Silent())
    for blobs in planned.shards:
        number = blobs.number
        fetch_blobs(registry, store, database, run, remote, shard=number, is_last_try=True, report=_Silent())
    commit_version(database, run, report=_Silent())
    repository = database.repositories.by_name(NAME)
    database.distributions.create(DistributionSpec(NAME, NAME, repository.id, is_private=False))
    database.close()
    return options


class _Silent:
    def __call__(self, line: str) -> None:
        """Nobody reads what a stage reports here."""

    warning = __call__


def _end_with_standard_input() -> None:
    # Not through sys.stdin, whose lock a worker that is forked meanwhile would wait for.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from dataclasses import replace

    options = fill(Path(sys.argv[1]))
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    serve(replace(options, port=int(sys.argv[2])))
