"""The present moment, where it is not given."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """Now, aware and in UTC."""
    return datetime.now(timezone.utc)
