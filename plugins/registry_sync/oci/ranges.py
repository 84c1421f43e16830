"""Partial answers (RFC 9110 section 14.4): whether one continues exactly what is there."""

from __future__ import annotations

import re

from registry_sync.oci.answers import Answer

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


def continues(answer: Answer, offset: int, size_bytes: int) -> bool:
    """Whether a 206 is one part, from ``offset`` to the end of ``size_bytes``."""
    match = _CONTENT_RANGE.fullmatch((answer.header("Content-Range") or "").strip())
    if match is None:
        return False
    first, last, total = int(match[1]), int(match[2]), match[3]
    return first == offset and last == size_bytes - 1 and (total is None or int(total) == size_bytes)


def strong_etag(answer: Answer) -> str | None:
    """An entity tag that may stand in ``If-Range``; None when there is none, or a weak one."""
    value = (answer.header("ETag") or "").strip()
    return value if _STRONG_ETAG.fullmatch(value) else None
