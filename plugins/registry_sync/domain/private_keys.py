"""Private keys in PEM text (RFC 7468), which are kept apart from certificates: those are shown, keys are not."""

from __future__ import annotations

import re

_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)\s*", re.DOTALL)


def has_private_key(text: str) -> bool:
    """Whether ``text`` contains a private key, whole or truncated."""
    return _KEY.search(text) is not None


def split_private_keys(text: str) -> tuple[str, str]:
    """``text`` without private keys, and the private keys."""
    return _KEY.sub("", text), "".join(found.group() for found in _KEY.finditer(text))
