"""Content and syncs for tests of the metadata database: manifests as values, and a run played from end to end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from registry_sync.db.database import Database
from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, read_manifest
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy, Remote, RemoteSpec
from registry_sync.domain.runs import Authority, CommitResult, ListedTag, ManifestLink, RunKey, SyncRun
from registry_sync.errors import TooManyRemovals

LISTED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
_run_numbers = itertools.count(1)


def layer(text: str, *, size_bytes: int | None = None, is_foreign: bool = False) -> Descriptor:
    """A descriptor of a layer that holds ``text``."""
    return Descriptor(
        media_type=media_types.OCI_LAYER_GZIP,
        digest=Digest.of(text.encode()),
        size_bytes=len(text) if size_bytes is None else size_bytes,
        urls=("https://elsewhere.example/layer",) if is_foreign else (),
    )


def image(*layers: Descriptor | str, config: str | None = None, note: str = "") -> Manifest:
    """An image of layers, with a config of its own unless ``config`` names one."""
    described = tuple(entry if isinstance(entry, Descriptor) else layer(entry) for entry in layers)
    text = config if config is not None else f"config of {[entry.digest for entry in described]} {note}"
    config_blob = Descriptor(media_types.OCI_CONFIG, Digest.of(text.encode()), len(text))
    return _manifest(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": _entry(config_blob),
            "layers": [_entry(blob) for blob in described],
            "annotations": {"note": note},
        }
    )


def index(*children: Manifest, platform: Mapping[str, str] | None = None, note: str = "") -> Manifest:
    """An index of manifests."""
    entries = [Descriptor(child.media_type, child.digest, child.size_bytes, platform=platform) for child in children]
    return _manifest(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [_entry(entry) for entry in entries],
            "annotations": {"note": note},
        }
    )


def artifact(subject: Manifest, text: str, *, artifact_type: str | None) -> Manifest:
    """An image manifest that refers to ``subject``; without a type of its own it has that of its config."""
    document = json.loads(image(text, config=f"config of {text}").data)
    document["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size_bytes}
    return _manifest({**document, "artifactType": artifact_type} if artifact_type else document)


def _entry(described: Descriptor) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": described.media_type,
        "digest": described.digest,
        "size": described.size_bytes,
    }
    if described.urls:
        entry["urls"] = list(described.urls)
    if described.platform is not None:
        entry["platform"] = dict(described.platform)
    return entry


def _manifest(document: Mapping[str, object]) -> Manifest:
    return read_manifest(json.dumps(document).encode())


def blobs_of(*manifests: Manifest) -> set[Digest]:
    """Digests of the blobs that these manifests name themselves."""
    return {blob.digest for manifest in manifests for _, blob in manifest.blobs()}


@dataclass
class Upstream:
    """A repository elsewhere: ``tags`` name manifests; ``catalog`` holds every manifest that tags lead to.

    An entry of an index that is not in it is missing there, as in a sparse index.
    """

    tags: dict[str, Manifest] = field(default_factory=dict)
    catalog: dict[Digest, Manifest] = field(default_factory=dict)

    def tag(self, name: str, manifest: Manifest, *children: Manifest) -> None:
        self.tags[name] = manifest
        for entry in (*children, manifest):
            self.catalog[entry.digest] = entry

    def closure(self, roots: Iterable[Digest]) -> list[Manifest]:
        """Manifests below ``roots`` and themselves, children first."""
        found: dict[Digest, Manifest] = {}

        def visit(digest: Digest) -> None:
            if digest in found or digest not in self.catalog:
                return
            for child in self.catalog[digest].children:
                visit(child.digest)
            found[digest] = self.catalog[digest]

        for root in roots:
            visit(root)
        return list(found.values())


def upstream_with(count: int, note: str = "") -> Upstream:
    """A repository of that many tags, ``tag-00`` and so on, each on its own image; ``note`` makes other images."""
    upstream = Upstream()
    for number in range(count):
        upstream.tag(f"tag-{number:02}", image(f"layer {number}", note=note))
    return upstream


def new_key() -> RunKey:
    """A key that no other run of the tests has."""
    return RunKey("sync_registry", f"manual__{next(_run_numbers)}")


def open_run(
    database: Database,
    repository: Repository,
    *,
    mode: SyncMode = SyncMode.MIRROR,
    policy: Policy = Policy.IMMEDIATE,
    key: RunKey | None = None,
    authority: Authority = Authority.AUTHOR,
    remote: Remote | None = None,
    **said: Any,
) -> SyncRun:
    """A run of ``repository`` from a remote that every test may share, unless ``name`` or ``remote`` says which.

    ``said`` is what the run says otherwise than the remote.
    """
    name, upstream_name = said.pop("name", "upstream"), said.pop("upstream_name", "library/app")
    remote = remote or database.remotes.ensure(
        RemoteSpec.parse(name, "https://registry.example", upstream_name, policy=policy)
    )
    return database.runs.begin(
        key or new_key(),
        repository_id=repository.id,
        remote_id=remote.id,
        remote=remote.spec.changed(**said),
        mode=mode,
        authority=authority,
    )


def play_stages(
    database: Database,
    run: SyncRun,
    upstream: Upstream,
    *,
    held: Mapping[str, str] | None = None,
    gone: Sequence[str] = (),
    failing: Mapping[Digest, str] | None = None,
    listed_at: datetime = LISTED_AT,
    reread: Collection[str] = (),
    in_full: bool = False,
) -> None:
    """Everything of a sync but the commit: what is listed, fetched, held, dropped, planned and stored.

    Tags of ``reread`` are read although they are as in the latest version. ``in_full`` records every listed tag.
    """
    latest = database.versions.latest_tags(run.repository_id)
    present = latest.digests
    tags = {TagName(name): manifest.digest for name, manifest in upstream.tags.items()}
    read = {*(held or {}), *gone, *reread}
    listed = [
        ListedTag(name, digest, None if present.get(name) == digest and name not in read else 0)
        for name, digest in sorted(tags.items())
    ]
    database.runs.record_listing(run.id, listed_at, listed, base=None if in_full else latest)
    database.runs.hold_tags(run.id, {TagName(name): reason for name, reason in (held or {}).items()})
    database.runs.drop_tags(run.id, [TagName(name) for name in gone])
    pending = {tag.name: tags[tag.name] for tag in database.runs.tags_of_shard(run.id, 0)}
    below = upstream.closure(pending.values())
    database.contents.add_manifests(below)
    children = [(parent.digest, child.digest) for parent in below for child in parent.children]
    there = database.contents.stored_manifests([child for _, child in children])
    links = [ManifestLink(parent, child, is_missing=child not in there) for parent, child in children]
    database.selections.record(run.id, [manifest.digest for manifest in below], links)
    database.runs.resolve_tags(run.id, pending)
    if run.policy is not Policy.IMMEDIATE:
        return
    wanted = [blob for blob in database.runs.required_blobs(run.id) if not blob.is_foreign and not blob.is_stored]
    database.runs.record_plan(run.id, ((0, blob) for blob in wanted))
    database.contents.mark_stored(blob.digest for blob in wanted if blob.digest not in (failing or {}))
    database.runs.fail_blobs(run.id, failing or {})


def sync(
    database: Database,
    repository: Repository,
    upstream: Upstream,
    *,
    mode: SyncMode = SyncMode.MIRROR,
    policy: Policy = Policy.IMMEDIATE,
    held: Mapping[str, str] | None = None,
    gone: Sequence[str] = (),
    failing: Mapping[Digest, str] | None = None,
    remote: Remote | None = None,
) -> CommitResult:
    """A sync from end to end."""
    run = open_run(database, repository, mode=mode, policy=policy, remote=remote)
    play_stages(database, run, upstream, held=held, gone=gone, failing=failing)
    return database.versions.commit(run.id)


def thirty_tags(database: Database) -> Repository:
    """The repository ``hello``, a mirror of thirty tags."""
    repository = database.repositories.ensure("hello")
    sync(database, repository, upstream_with(30))
    return repository


def two_versions(database: Database, name: str) -> Repository:
    """A repository with two versions: latest moved, old gone and new came with the second."""
    repository, upstream = database.repositories.ensure(name), Upstream()
    upstream.tag("latest", image("a"))
    upstream.tag("old", image("b"))
    sync(database, repository, upstream)
    del upstream.tags["old"]
    upstream.tag("latest", image("c"))
    upstream.tag("new", image("a"))
    sync(database, repository, upstream)
    return database.repositories.by_name(name)


def stopped_run(database: Database, name: str) -> SyncRun:
    """A run of a repository of that name that waits for the approval of its removals."""
    repository = database.repositories.ensure(name)
    sync(database, repository, upstream_with(30, name))
    run = open_run(database, repository)
    play_stages(database, run, upstream_with(3, name))
    try:
        database.versions.commit(run.id)
    except TooManyRemovals as refused:
        database.runs.report_waiting(run.id, f"TooManyRemovals: {refused}")
        return database.runs.get(run.id)
    raise AssertionError("nothing stopped it")
