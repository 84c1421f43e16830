"""Time as the client sees it, in one place, so that waiting can be watched and expiry can be tried out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """``monotonic`` measures durations and expiry, ``now`` is seconds since 1970, ``sleep`` waits; all in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()
