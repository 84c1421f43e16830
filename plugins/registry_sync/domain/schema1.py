"""Docker's image manifest version 2, schema 1, parsed where the remote allows it.

It may contain signatures. Its digest is then that of the signed payload, which each signature locates in the document.
The signatures are not verified: content requested by digest is verified by its digest. Layers are listed newest first,
often repeatedly, and without sizes. The rest of the code treats it as an image without a config; the information of a
config is in its history, which is ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.strict_json import parse_strict_json
from registry_sync.errors import AmbiguousManifest, InvalidManifest, InvalidReference, LimitExceeded

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_READ = frozenset({"schemaversion", "mediatype", "fslayers", "history", "signatures"})
#: Fields of other kinds of manifest; a parser that ignores the version could mistake it for one of them.
_FORBIDDEN = frozenset({"config", "layers", "manifests", "blobs", "subject"})


def may_be_signed(data: bytes, header: str) -> bool:
    """Whether the digest of ``data`` may cover a payload only; ``header`` is its normalised ``Content-Type``."""
    may_be_schema1 = header in media_types.SCHEMA1_TYPES or header in media_types.GENERIC_TYPES
    return may_be_schema1 and b'"signatures"' in data


def payload_of(data: bytes, document: dict[str, Any], digest: Digest) -> bytes:
    """The bytes that the digest covers: all of them, or the signed payload.

    ``document`` is ``data``, parsed; ``digest`` names it in the error. Raises :class:`InvalidManifest` for signatures
    that disagree, and for a document that has more than its payload and the signatures.
    """
    if "signatures" not in document:
        return data
    signatures = document["signatures"]
    if not isinstance(signatures, list):
        raise _invalid(digest, "its signatures are not a list")
    cuts = {_cut(signature, len(data), digest) for signature in signatures}
    if len(cuts) != 1:
        raise _invalid(digest, "it has no signature, or they disagree about what they sign")
    ((length, tail),) = cuts
    payload = data[:length] + tail
    unsigned = {name: value for name, value in document.items() if name != "signatures"}
    if _canonical(parse_strict_json(payload, digest), digest) != _canonical(unsigned, digest):
        raise _invalid(digest, "it contains more than its signatures sign")
    return payload


def layers_of(document: dict[str, Any], digest: Digest, limit: int) -> tuple[Digest, ...]:
    """The layers that a document names, in its order: newest first, repeats included.

    Raises :class:`InvalidManifest`, :class:`AmbiguousManifest` and :class:`LimitExceeded`.
    """
    _refuse_ambiguous(document, digest)
    version = document.get("schemaVersion")
    if version != 1 or isinstance(version, bool):
        raise _invalid(digest, "schemaVersion is not 1")
    layers, history = document.get("fsLayers"), document.get("history")
    if not isinstance(layers, list) or not isinstance(history, list) or len(layers) != len(history):
        raise _invalid(digest, "fsLayers and history are not two lists of one length")
    if len(layers) > limit:
        problem = f"manifest {digest}: fsLayers has {len(layers)} entries, more than {limit}"
        raise LimitExceeded(problem, digest=digest, limit="fsLayers")
    return tuple(_layer(entry, f"fsLayers[{position}]", digest) for position, entry in enumerate(layers))


def _layer(entry: object, where: str, digest: Digest) -> Digest:
    try:
        return Digest(entry.get("blobSum") if isinstance(entry, dict) else None)
    except InvalidReference as problem:
        raise _invalid(digest, f"{where} has no usable blobSum: {problem}") from None


def _refuse_ambiguous(document: dict[str, Any], digest: Digest) -> None:
    seen: set[str] = set()
    for name in document:
        folded = name.lower()
        if folded in _FORBIDDEN or (folded in _READ and folded in seen):
            problem = f"manifest {digest} is of schema 1 and has {name[:40]!r} too, or in two spellings"
            raise AmbiguousManifest(problem, digest=digest)
        seen.add(folded)


def _cut(signature: object, size_bytes: int, digest: Digest) -> tuple[int, bytes]:
    """The count of signed bytes of the document, and the text that follows them in the payload."""
    protected = signature.get("protected") if isinstance(signature, dict) else None
    if not isinstance(protected, str):
        raise _invalid(digest, "a signature does not say what it signs")
    header = parse_strict_json(_decoded(protected, digest), digest)
    length, tail = header.get("formatLength"), header.get("formatTail")
    if not isinstance(length, int) or not 0 <= length <= size_bytes:
        raise _invalid(digest, "a signature signs more than the document, or has no usable formatLength")
    if not isinstance(tail, str):
        raise _invalid(digest, "a signature has no usable formatTail")
    return length, _decoded(tail, digest)


def _decoded(text: str, digest: Digest) -> bytes:
    """Base64 in its alphabet for URLs, padded or not (RFC 7515, appendix C)."""
    if not _BASE64URL.fullmatch(text):
        raise _invalid(digest, "a signature is not base64")
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise _invalid(digest, "a signature is not base64") from None


def _canonical(document: dict[str, Any], digest: Digest) -> str:
    try:
        return json.dumps(document, sort_keys=True)
    except RecursionError:
        raise _invalid(digest, "it is nested too deeply") from None


def _invalid(digest: Digest, problem: str) -> InvalidManifest:
    return InvalidManifest(f"manifest {digest} is of schema 1: {problem}", digest=digest)
