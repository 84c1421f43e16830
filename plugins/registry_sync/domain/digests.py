"""Digests of content (OCI image specification, descriptor.md, "Digests").

A :class:`Digest` is text that was validated when it was parsed, so that it may be used in file names and URLs. It does
not read content itself; callers feed a :meth:`Digest.hasher`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from registry_sync.errors import InvalidReference, UnsupportedDigest

if TYPE_CHECKING:
    from hashlib import _Hash

#: Nearly all digests, of which a sync reads one for each unit: recognized at a third of the cost.
_is_sha256 = re.compile(r"sha256:[a-f0-9]{64}").fullmatch
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_REGISTERED = {
    "sha256": re.compile(r"[a-f0-9]{64}"),
    "sha512": re.compile(r"[a-f0-9]{128}"),
    "blake3": re.compile(r"[a-f0-9]{64}"),
}
_VERIFIABLE = frozenset({"sha256", "sha512"})
#: The longest digest accepted; the specification sets no limit, a sha512 digest has 135 characters.
MAX_LENGTH = 255


class Digest(str):
    """``algorithm:encoded``, validated. A ``str``, so that it compares and sorts like its text.

    Unknown algorithms that match the grammar are accepted; :attr:`is_verifiable` is False for them. Raises
    :class:`InvalidReference` for anything else.
    """

    __slots__ = ()

    def __new__(cls, text: object) -> Digest:
        if isinstance(text, Digest):
            return text
        if isinstance(text, str) and _is_sha256(text):
            return super().__new__(cls, text)
        if not isinstance(text, str) or len(text) > MAX_LENGTH or not _GRAMMAR.fullmatch(text):
            raise InvalidReference(
                f"{str(text)[:80]!r} is not a digest: expected algorithm:encoded, such as sha256:<64 hex>"
            )
        algorithm, _, encoded = text.partition(":")
        registered = _REGISTERED.get(algorithm)
        if registered is not None and not registered.fullmatch(encoded):
            raise InvalidReference(
                f"{text[:80]!r} is not a {algorithm} digest: wrong length, or not lower-case hexadecimal"
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @classmethod
    def of_sha256(cls, value: bytes | bytearray) -> Digest:
        """The digest with these 32 bytes, which need no validation."""
        return super().__new__(cls, f"sha256:{value.hex()}")

    @property
    def algorithm(self) -> str:
        """``sha256`` in ``sha256:…``."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The text after the colon."""
        return self.partition(":")[2]

    @property
    def is_verifiable(self) -> bool:
        """Whether content can be verified against it (sha256 and sha512)."""
        return self.algorithm in _VERIFIABLE

    def hasher(self) -> _Hash:
        """A fresh ``hashlib`` object of its algorithm. Raises :class:`UnsupportedDigest` for other algorithms."""
        if not self.is_verifiable:
            raise UnsupportedDigest(f"content under {self.algorithm} digests cannot be verified here", digest=self)
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Whether ``data`` has this digest. Raises :class:`UnsupportedDigest` when it is not verifiable."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.encoded
