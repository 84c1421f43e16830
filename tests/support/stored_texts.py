"""Blobs that hold short texts, as the layers and configs of the images in ``metadata`` are made of."""

from __future__ import annotations

from registry_sync.blobs.store import BlobStore
from registry_sync.domain.digests import Digest


def keep_texts(store: BlobStore, *texts: str) -> list[Digest]:
    """Puts ``texts`` into the store; their digests in order."""
    digests = [Digest.of(text.encode()) for text in texts]
    for digest, text in zip(digests, texts, strict=True):
        with store.writer(digest, len(text)) as writer:
            writer.write(text.encode()[writer.offset :])
            writer.commit()
    return digests
