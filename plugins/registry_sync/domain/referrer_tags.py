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
_NAMED_AFTER = re.compile(r"sha256-(?P<encoded>[0-9a-f]{64})(?P<suffix>\.(sig|att|sbom))?")
_REFERRER_TAG = re.compile(r"[a-z0-9._-]{1,32}-[a-zA-Z0-9_=-]{32,64}(\.(sig|att|sbom))?")


def fallback_tag(digest: Digest) -> TagName:
    """The tag under which a registry without the referrers API keeps the index of what refers to ``digest``."""
    text = f"{digest.algorithm[:32]}-{digest.encoded[:64]}"
    return TagName(_NOT_OF_A_TAG.sub("-", text))


def referrer_tag_names(digest: Digest) -> tuple[TagName, ...]:
    """The tags under which something may be kept that belongs to ``digest``."""
    fallback = fallback_tag(digest)
    return (fallback, *(TagName(f"{fallback}{suffix}") for suffix in COSIGN_SUFFIXES))


def looks_like_a_referrer_tag(tag: TagName) -> bool:
    """Whether ``tag`` has the form of one that belongs to a digest."""
    return _REFERRER_TAG.fullmatch(tag) is not None


def referrer_tags(tags: Iterable[TagName], digests: Iterable[Digest]) -> list[TagName]:
    """Those of ``tags`` that belong to one of ``digests``, sorted; the tags are a whole listing, unfiltered."""
    wanted = {name for digest in digests for name in referrer_tag_names(digest)}
    return sorted({tag for tag in tags if tag in wanted})


def subject_by_name(tag: TagName, digest: Digest | None) -> Digest | None:
    """The manifest that ``tag``, which stands for ``digest``, belongs to by its name; None when it is an image's own.

    An image's own is also a tag that is named after the very manifest that it stands for.
    """
    found = _NAMED_AFTER.fullmatch(tag)
    if found is None:
        return None
    subject = Digest(f"sha256:{found['encoded']}")
    return None if subject == digest and not found["suffix"] else subject
