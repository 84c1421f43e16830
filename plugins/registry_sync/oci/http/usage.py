"""Counts of a client's requests, across its threads."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Protocol

_LIMIT = re.compile(r"\s*([0-9]{1,9})\s*(?:;\s*w=([0-9]{1,9}))?.*", re.DOTALL)


class _Headers(Protocol):
    def header(self, name: str) -> str | None: ...


@dataclass(frozen=True)
class RateLimit:
    """The pulls that a registry still allows, as Docker Hub reports them; absent fields are None."""

    remaining: int
    limit: int | None = None
    window_seconds: int | None = None
    source: str | None = None

    @classmethod
    def read(cls, response: _Headers) -> RateLimit | None:
        """Reads the ``ratelimit-*`` headers of a response; None when they are absent or unreadable."""
        remaining = _last_limit(response.header("ratelimit-remaining"))
        if remaining is None:
            return None
        limit = _last_limit(response.header("ratelimit-limit")) or (None, None)
        source = re.sub(r"[^\x21-\x7e]", "", response.header("docker-ratelimit-source") or "")[:128]
        return cls(remaining[0], limit[0], remaining[1] or limit[1], source or None)


def _last_limit(value: str | None) -> tuple[int, int | None] | None:
    """The number and window of ``100;w=21600``, or of the last in a list that has a window (``100, 100;w=21600``)."""
    parsed = [match.groups() for part in (value or "").split(",") if (match := _LIMIT.fullmatch(part))]
    if not parsed:
        return None
    number, window = next((pair for pair in reversed(parsed) if pair[1]), parsed[-1])
    return int(number), int(window) if window else None


@dataclass(frozen=True)
class UsageCounts:
    """One reading of :class:`Usage`. ``received_bytes`` counts bodies of manifests and blobs as received."""

    head_count: int = 0
    manifest_get_count: int = 0
    blob_get_count: int = 0
    tag_page_count: int = 0
    received_bytes: int = 0
    retry_count: int = 0
    token_exchange_count: int = 0


class Usage:
    """Counters that only grow; safe to use from several threads. ``rate_limit`` is the latest reported, or None."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(UsageCounts.__dataclass_fields__, 0)
        self._warnings: dict[str, None] = {}
        self.rate_limit: RateLimit | None = None

    def add(self, counter: str, amount: int = 1) -> None:
        """Adds to one of the counters of :class:`UsageCounts`."""
        with self._lock:
            self._counts[counter] += amount

    def record_rate_limit(self, response: _Headers) -> None:
        """Records the rate limit in the headers of a response."""
        limit = RateLimit.read(response)
        if limit is not None:
            self.rate_limit = limit

    def record_warning(self, text: str) -> bool:
        """Records a registry's warning; True the first time. At most a hundred different ones are kept."""
        with self._lock:
            if text in self._warnings or len(self._warnings) >= 100:
                return False
            self._warnings[text] = None
            return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the registry, each once, in the order they came."""
        with self._lock:
            return tuple(self._warnings)

    def counts(self) -> UsageCounts:
        """All counters at one point in time."""
        with self._lock:
            return UsageCounts(**self._counts)

    @property
    def head_count(self) -> int:
        return self._counts["head_count"]

    @property
    def manifest_get_count(self) -> int:
        return self._counts["manifest_get_count"]

    @property
    def blob_get_count(self) -> int:
        return self._counts["blob_get_count"]

    @property
    def tag_page_count(self) -> int:
        return self._counts["tag_page_count"]

    @property
    def received_bytes(self) -> int:
        return self._counts["received_bytes"]

    @property
    def retry_count(self) -> int:
        return self._counts["retry_count"]

    @property
    def token_exchange_count(self) -> int:
        return self._counts["token_exchange_count"]
