"""A running hash that remembers what it was on the way."""

from __future__ import annotations

from registry_sync.domain.digests import Digest


class PrefixHash:
    """The hash of the bytes so far, and of the first 1, 2, 3 … times ``mark_bytes`` of them; None marks nothing.

    Raises :class:`UnsupportedDigest`.
    """

    def __init__(self, digest: Digest, mark_bytes: int | None = None) -> None:
        self.marks: list[str] = []
        self._mark_bytes = mark_bytes
        self._hasher = digest.hasher()
        self._room = mark_bytes

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        if self._room is None or self._mark_bytes is None:
            self._hasher.update(chunk)
            return
        rest = memoryview(chunk)
        while rest:
            taken = rest[: self._room]
            self._hasher.update(taken)
            self._room -= len(taken)
            if not self._room:
                self.marks.append(self._hasher.hexdigest())
                self._room = self._mark_bytes
            rest = rest[len(taken) :]

    def hexdigest(self) -> str:
        """Of all bytes so far; more may follow."""
        return self._hasher.hexdigest()

    def hexdigest_with(self, more: bytes) -> str:
        """Of all bytes so far and ``more``, which is not taken."""
        hasher = self._hasher.copy()
        hasher.update(more)
        return hasher.hexdigest()
