"""Manifests of Docker's schema 1, plain and signed, as registries of that time sent them; or lying about themselves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from registry_sync.domain.digests import Digest

#: What a signed payload ends with; the signatures were written before it.
TAIL = b"\n}"


def base64url(data: bytes) -> str:
    """``data`` in the alphabet for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def document(layers: Iterable[Digest], /, **fields: Any) -> dict[str, Any]:
    """The manifest of an image with these layers, newest first."""
    layers = list(layers)
    return {
        "schemaVersion": 1,
        "name": "team/old",
        "tag": "latest",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": str(layer)} for layer in layers],
        "history": [{"v1Compatibility": json.dumps({"id": f"{number:064x}"})} for number, _ in enumerate(layers)],
        **fields,
    }


def payload_of(content: Mapping[str, Any]) -> bytes:
    """The bytes that are signed, and whose digest is in the signature."""
    return json.dumps(content, indent=3).encode()


def signature(length: object, tail: object = TAIL, **more: Any) -> dict[str, Any]:
    """One signature that says what it signs; ``length`` and ``tail`` may be anything."""
    reported = {"formatLength": length, "formatTail": base64url(tail) if isinstance(tail, bytes) else tail}
    return {
        "header": {"alg": "ES256"},
        "signature": base64url(b"nobody looks at this"),
        "protected": base64url(json.dumps(reported).encode()),
        **more,
    }


def signed(payload: bytes, signatures: Any = None, *, between: bytes = b"") -> bytes:
    """``payload`` with its signatures written in; ``between`` slips something in that they do not sign."""
    length = len(payload) - len(TAIL)
    assert payload.endswith(TAIL)
    written = [signature(length)] if signatures is None else signatures
    return payload[:length] + between + b',\n   "signatures": ' + json.dumps(written).encode() + TAIL
