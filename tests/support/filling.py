"""Puts content into a registry: over its API as a builder does, or straight onto its disk when there is much."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from registry_sync.domain.digests import Digest
from support.images import Blob, BuiltManifest, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.registry import RegistryServer

T = TypeVar("T")
_THREADS = 8
#: Larger blobs are sent in pieces, not held in memory.
_HELD_BYTES = 8 * 1024 * 1024


def push(
    server: RegistryServer | MemoryRegistry,
    repository: str,
    content: RepositoryContent,
    *,
    mount_from: str | None = None,
) -> None:
    """Pushes everything over the registry's API; a push again is safe and moves the tags.

    With ``mount_from`` blobs that this other repository holds are mounted instead of uploaded. The registry's
    counts are not touched.
    """
    if isinstance(server, MemoryRegistry):
        server.add(repository, content)
        return

    def push_blob(blob: Blob) -> None:
        if mount_from is not None and server.mount_blob(repository, blob.digest, mount_from):
            return
        is_large = blob.size_bytes > _HELD_BYTES
        server.push_blob(repository, blob.digest, blob.pieces() if is_large else blob.data)

    def push_manifest(manifest: BuiltManifest) -> None:
        server.push_manifest(repository, manifest.digest, manifest.media_type, manifest.data)

    def push_tag(name: str) -> None:
        manifest = content.manifests[content.tags[name]]
        server.push_manifest(repository, name, manifest.media_type, manifest.data)

    _at_once(server, push_blob, content.blobs.values())
    levels = _levels(content)
    for level in levels:
        _at_once(server, push_manifest, level)
    # A tag puts its manifest again, and while the registry rewrites it an index that names it would be refused.
    for level in levels:
        digests = {manifest.digest for manifest in level}
        _at_once(server, push_tag, [name for name, digest in content.tags.items() if digest in digests])


def place(server: RegistryServer | MemoryRegistry, repository: str, content: RepositoryContent) -> None:
    """Writes everything into the registry's storage, many times faster than :func:`push` and with the same result.

    The registry may run meanwhile. Content that it would refuse is not checked.
    """
    if isinstance(server, MemoryRegistry):
        server.add(repository, content)
        return
    for blob in content.blobs.values():
        _write_blob(server.blob_path(blob.digest), blob)
    for manifest in content.manifests.values():
        _write(server.blob_path(manifest.digest), manifest.data)
    folder = server.repository_storage(repository)
    for digest in content.blobs:
        _write_link(folder / "_layers", digest)
    for digest in content.manifests:
        _write_link(folder / "_manifests/revisions", digest)
    for name, digest in content.tags.items():
        _write(folder / "_manifests/tags" / name / "current/link", digest.encode())
        _write_link(folder / "_manifests/tags" / name / "index", digest)


def _at_once(server: RegistryServer, action: Callable[[T], None], items: Iterable[T]) -> None:
    items = list(items)
    if not items:
        return
    slices = [items[start::_THREADS] for start in range(min(_THREADS, len(items)))]

    def work(part: list[T]) -> None:
        try:
            for item in part:
                action(item)
        finally:
            server.close_session()

    with ThreadPoolExecutor(len(slices)) as pool:
        for done in [pool.submit(work, part) for part in slices]:
            done.result()


def _levels(content: RepositoryContent) -> list[list[BuiltManifest]]:
    """Manifests in levels: those of one level have children in earlier ones only."""
    depths: dict[Digest, int] = {}
    levels: list[list[BuiltManifest]] = []
    for manifest in content.manifests.values():
        depth = 1 + max((depths[child] for child in manifest.children), default=-1)
        depths[manifest.digest] = depth
        while len(levels) <= depth:
            levels.append([])
        levels[depth].append(manifest)
    return levels


def _write_link(folder: Path, digest: Digest) -> None:
    _write(folder / digest.algorithm / digest.encoded / "link", digest.encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_blob(path: Path, blob: Blob) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in blob.pieces():
            file.write(piece)
