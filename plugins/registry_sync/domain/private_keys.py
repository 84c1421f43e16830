"""Private keys in PEM text (RFC 7468), which must not stand where certificates are shown."""

from __future__ import annotations

import re

_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)\s*", re.DOTALL)


def has_private_key(text: str) -> bool:
    """Whether a private key stands in ``text``, whole or cut off."""
    return _KEY.search(text) is not None


def split_private_keys(text: str) -> tuple[str, str]:
    """The rest of ``text``, and the private keys in it."""
    return _KEY.sub("", text), "".join(found.group() for found in _KEY.finditer(text))
