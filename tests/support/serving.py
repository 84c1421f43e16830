"""A scripted registry that serves content correctly, in which tests then change single responses."""

from __future__ import annotations

import json

from registry_sync.domain import media_types
from support.hostile_registry import HostileRegistry, json_reply, reply
from support.images import RepositoryContent
from support.signatures import referrer_entry, subject_of


def serve(
    registry: HostileRegistry, repository: str, content: RepositoryContent, *, heads_have_digests: bool = True
) -> HostileRegistry:
    """``registry``, with responses for the tags, manifests and blobs of ``content``."""
    registry.on("GET", f"/v2/{repository}/tags/list", json_reply({"name": repository, "tags": sorted(content.tags)}))
    for digest, manifest in content.manifests.items():
        headers = [("Docker-Content-Digest", digest)]
        kind = manifest.media_type
        for name in (digest, *(name for name, tagged in content.tags.items() if tagged == digest)):
            path = f"/v2/{repository}/manifests/{name}"
            said = headers if heads_have_digests else []
            registry.on("HEAD", path, reply(200, b"", said, length=len(manifest.data), content_type=kind))
            registry.on("GET", path, reply(200, manifest.data, headers, content_type=kind))
    for digest, blob in content.blobs.items():
        response = reply(200, blob.data, content_type="application/octet-stream")
        registry.on("GET", f"/v2/{repository}/blobs/{digest}", response)
    return registry


def serve_referrers(registry: HostileRegistry, repository: str, content: RepositoryContent) -> None:
    """Lays down the referrers API over all of ``content``."""
    for subject in content.manifests:
        entries = [referrer_entry(m) for m in content.manifests.values() if subject_of(m) == subject]
        document = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries})
        path = f"/v2/{repository}/referrers/{subject}"
        registry.on("GET", path, reply(200, document, content_type=media_types.OCI_INDEX))
