"""How long a registry asks to wait (RFC 9110 section 10.2.3), read with distrust."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

#: Longer is not a wait but a mistake, such as seconds since 1970 in place of a duration.
LONGEST_BELIEVED_SECONDS = 24 * 3600.0


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait from ``now`` (seconds since 1970); None when the value is absent, past or not to be believed.

    Seconds, a date, and seconds since 1970 (which some registries send) are understood.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", text):
        seconds = float(text)
        if seconds > LONGEST_BELIEVED_SECONDS:
            seconds -= now
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
    return seconds if 0 < seconds <= LONGEST_BELIEVED_SECONDS else None
