"""Where what lies below the root of a store. The layout is decided here, and is the same in every store.

A blob has three parts in its name: algorithm, first two characters, encoded. What begins with a dot is the store's
own and no blob, since no algorithm of a digest begins so. Everything else was put there by a stranger.
"""

from __future__ import annotations

import re

from registry_sync.domain.digests import Digest
from registry_sync.errors import InvalidReference

#: What was written of blobs that are not published.
PARTIALS = ".partials"
#: Blobs whose bytes were found to be others than their digest says.
QUARANTINE = ".quarantine"
_FIRST_TWO = re.compile(r"[0-9a-f]{2}")


def blob_name(digest: Digest) -> str:
    """The name of a blob, relative to the root: ``sha256/ab/abcd…``."""
    encoded = digest.encoded
    return f"{digest.algorithm}/{encoded[:2]}/{encoded}"


def flat_name(digest: Digest) -> str:
    """The name of what belongs to a blob in a folder of the store's own: ``sha256-abcd…``."""
    return f"{digest.algorithm}-{digest.encoded}"


def digest_of(name: str) -> Digest | None:
    """The digest that a name of :func:`blob_name` or :func:`flat_name` stands for; None for any other name."""
    algorithm, _, rest = name.partition("/" if "/" in name else "-")
    try:
        digest = Digest(f"{algorithm}:{rest.rpartition('/')[2]}")
    except InvalidReference:
        return None
    return digest if digest.is_verifiable and name in (blob_name(digest), flat_name(digest)) else None


def may_hold_blobs(folder: str) -> bool:
    """Whether blobs can lie somewhere below ``folder``, which is relative to the root."""
    algorithm, _, first_two = folder.partition("/")
    return algorithm in ("sha256", "sha512") and (not first_two or _FIRST_TWO.fullmatch(first_two) is not None)
