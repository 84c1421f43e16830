"""Whether all that a repository holds has arrived, byte for byte: otherwise what fails would be taken for fast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from registry_sync.domain.digests import Digest
from support.images import RepositoryContent

_CHUNK_BYTES = 1024 * 1024
_REF_NAME = "org.opencontainers.image.ref.name"


def check_oci_layout(folder: Path, content: RepositoryContent) -> None:
    """Of an OCI image layout: the entries of its index, their names, and its blobs."""
    entries = json.loads((folder / "index.json").read_bytes())["manifests"]
    tags: dict[str, set[str]] = {}
    for entry in entries:
        # Some name the tag alone, some the whole reference; what was replaced may stay beside.
        name = entry.get("annotations", {}).get(_REF_NAME, "").rpartition(":")[2]
        tags.setdefault(name, set()).add(entry["digest"])
    for tag, digest in content.tags.items():
        if str(digest) not in tags.get(tag, ()):
            raise RuntimeError(f"the layout's index has {tag} not as {digest}")
    reached = content.closure(content.tags)
    blobs = folder / "blobs"
    check_files({digest: blobs / digest.algorithm / digest.encoded for digest in [*reached.manifests, *reached.blobs]})


def check_folders(folder: Path, content: RepositoryContent) -> None:
    """Of skopeo's folders, one for each tag, with manifests and blobs by their digests."""
    by_tag = {path.name.rpartition(":")[2]: path for path in folder.rglob("*:*") if path.is_dir()}
    for tag, digest in content.tags.items():
        if tag not in by_tag:
            raise RuntimeError(f"there is no folder of {tag}")
        here, part = by_tag[tag], content.closure([tag])
        files = {blob: here / blob.encoded for blob in part.blobs}
        files |= {manifest: here / f"{manifest.encoded}.manifest.json" for manifest in part.manifests}
        check_files({**files, digest: here / "manifest.json"})


def check_blobs(folder: Path, digests: Iterable[Digest]) -> None:
    """Of blobs in files by their hexadecimal digests, in ``folder`` or below it."""
    found = {path.name: path for path in folder.rglob("*") if path.is_file()}
    check_files({digest: found.get(digest.encoded, folder / digest.encoded) for digest in digests})


def check_files(files: Mapping[Digest, Path]) -> None:
    """Each file has the bytes of its digest. Raises :class:`RuntimeError` for the first that has not."""
    for digest, path in files.items():
        hasher = hashlib.new(digest.algorithm)
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    hasher.update(chunk)
        except FileNotFoundError:
            raise RuntimeError(f"{digest} has not arrived") from None
        if hasher.hexdigest() != digest.encoded:
            raise RuntimeError(f"{digest} has arrived with other bytes")
