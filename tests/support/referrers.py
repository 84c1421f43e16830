"""What a scripted registry says of the referrers of one subject."""

from __future__ import annotations

import json

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import fallback_tag
from support.hostile_registry import HostileRegistry, Raw, reply
from support.oci import REPOSITORY

SUBJECT = Digest.of(b"subject")
API = f"/v2/{REPOSITORY}/referrers/{SUBJECT}"
FALLBACK = f"/v2/{REPOSITORY}/manifests/{fallback_tag(SUBJECT)}"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def index(*names: str) -> bytes:
    manifests = [
        {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(Digest.of(name.encode())),
            "size": 10,
            "artifactType": BUNDLE,
        }
        for name in names
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests}).encode()


def listing(*names: str, following: str | None = None, content_type: str = media_types.OCI_INDEX) -> Raw:
    links = [("Link", f'<{following}>; rel="next"')] if following else []
    return reply(200, index(*names), links, content_type=content_type)


def found(registry: HostileRegistry, client_of) -> list[Digest]:  # type: ignore[no-untyped-def]
    return [referrer.digest for referrer in client_of(registry).list_referrers(REPOSITORY, SUBJECT)]
