"""A registry that allows a hundred pulls in a window, as Docker Hub does, and the time that its windows go by."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from registry_sync.oci.http.options import Clock
from support.hostile_registry import Raw, Request, errors_reply
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry

LIMIT, WINDOW = 100, 21_600


class StandingTime:
    """A time that several threads share, and that passes when one of them sleeps."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.elapsed += seconds

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=timezone.utc) + timedelta(seconds=self.elapsed)

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.elapsed, sleep=self.sleep)


class LimitedRegistry:
    """Counts GETs of manifests in windows, refuses those beyond the limit, and reports what is left if it ``tells``."""

    def __init__(self, registry: MemoryRegistry, time: StandingTime, *, tells: bool) -> None:
        self.time = time
        self._tells = tells
        self._lock = threading.Lock()
        self._window = self._count = 0
        self.refused_count = 0
        self.pulled: list[tuple[int, str]] = []
        self.server = over_http(registry, around=self._around)

    def _around(self, request: Request, respond: Any) -> Raw:
        if "/manifests/" not in request.path:
            other: Raw = respond()
            return other
        with self._lock:
            window = int(self.time.elapsed // WINDOW)
            if window != self._window:
                self._window, self._count = window, 0
            if request.method == "GET":
                if self._count >= LIMIT:
                    self.refused_count += 1
                    left = (window + 1) * WINDOW - self.time.elapsed
                    return errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", str(int(left) + 1))])
                self._count += 1
                self.pulled.append((window, request.path.split("/manifests/")[0].removeprefix("/v2/")))
            left_count = LIMIT - self._count
        response: Raw = respond()
        if not self._tells:
            return response
        head, *body = response.pieces
        limits = f"ratelimit-limit: {LIMIT};w={WINDOW}\r\nratelimit-remaining: {left_count};w={WINDOW}\r\n\r\n"
        assert isinstance(head, bytes)
        return replace(response, pieces=(head.removesuffix(b"\r\n") + limits.encode(), *body))
