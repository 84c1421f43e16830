"""Tags by which signatures, attestations and bills of material are found beside the manifests they speak of.

The fallback tag is the distribution specification's ("Referrers Tag Schema"); the suffixed ones are cosign's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName

COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
_NOT_OF_A_TAG = re.compile(r"[^a-zA-Z0-9._-]")


def fallback_tag(digest: Digest) -> TagName:
    """The tag under which a registry without the referrers API keeps the index of what refers to ``digest``."""
    text = f"{digest.algorithm[:32]}-{digest.encoded[:64]}"
    return TagName(_NOT_OF_A_TAG.sub("-", text))


def companion_tags(tags: Iterable[TagName], digests: Iterable[Digest]) -> list[TagName]:
    """Those of ``tags`` that belong to one of ``digests``, sorted; the tags are a whole listing, unfiltered."""
    fallbacks = [fallback_tag(digest) for digest in digests]
    wanted = {*fallbacks, *(f"{fallback}{suffix}" for fallback in fallbacks for suffix in COSIGN_SUFFIXES)}
    return sorted({tag for tag in tags if tag in wanted})
