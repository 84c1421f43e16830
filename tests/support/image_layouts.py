"""Content written as an OCI image layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.images import RepositoryContent


def write_layout(folder: Path, content: RepositoryContent, names: Mapping[str, str] | None = None) -> Path:
    """All of ``content`` below ``folder``; ``names`` are names in ``index.json`` by tag, by default the tags."""
    blobs = folder / "blobs"
    for digest, data in (
        *((digest, manifest.data) for digest, manifest in content.manifests.items()),
        *((digest, blob.data) for digest, blob in content.blobs.items()),
    ):
        place = blobs / digest.algorithm / digest.encoded
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    entries: list[dict[str, Any]] = []
    for tag, digest in content.tags.items():
        manifest = content.manifests[digest]
        name = tag if names is None else names[tag]
        entries.append(
            {
                "mediaType": manifest.media_type,
                "digest": str(digest),
                "size": len(manifest.data),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
    write_index(folder, entries)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def write_index(folder: Path, entries: list[dict[str, Any]]) -> None:
    """The list of what a layout has."""
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The entries of that list."""
    entries: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())["manifests"]
    return entries
