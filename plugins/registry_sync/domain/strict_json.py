"""JSON with one meaning for every parser (I-JSON, RFC 7493), as manifests must have."""

from __future__ import annotations

import json
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.errors import InvalidManifest


def parse_strict_json(data: bytes, digest: Digest) -> dict[str, Any]:
    """``data`` as an object: UTF-8 without a byte order mark, no duplicate names, no NaN, no deep nesting.

    ``digest`` names the document in the error. Raises :class:`InvalidManifest`.
    """
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        reason = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)[:200]
        raise InvalidManifest(f"manifest {digest} is not valid JSON: {reason}", digest=digest) from None
    if not isinstance(document, dict):
        raise InvalidManifest(f"manifest {digest} is not a JSON object", digest=digest)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
