"""Schedules of mirrors: a cron expression, a preset, an interval or an asset, spread by a constant offset.

A fleet with one schedule would start at once. With ``spread`` each mirror starts at a time of its own within that
duration, which its name decides, so that it is the same at each reading. The offset becomes part of the cron
expression, so that Airflow shows the time at which the mirror really starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from registry_sync.errors import ConfigurationError
from registry_sync.fleet.kinds import duration_seconds

EXPECTED_SCHEDULE = (
    'five fields such as "30 3 * * 1-5", a preset such as "@daily", an interval such as 6h, or {asset: URI}'
)
#: The presets of Airflow that are crons, and their expressions.
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
_DAY_MINUTES = 24 * 60
#: The shortest interval; each run costs Airflow a task.
LEAST_SECONDS = 60


def check_schedule(text: str) -> None:
    """Raises :class:`ConfigurationError` for what is no schedule."""
    if duration_seconds(text) is not None:
        if (duration_seconds(text) or 0) < LEAST_SECONDS:
            raise ConfigurationError(f"this is {text[:40]!r}, which is shorter than a minute")
        return
    if text.startswith("@"):
        if text not in PRESETS:
            raise ConfigurationError(f"this is {text[:40]!r}; the presets are {', '.join(PRESETS)}")
        return
    _fields(text)


@lru_cache(maxsize=1024)
def _fields(cron: str) -> tuple[tuple[Any, ...], ...]:
    """The values of each field of a cron expression, ``("*",)`` for all of them. Raises as :func:`check_schedule`."""
    from croniter import CroniterError, croniter

    if len(cron.split()) != 5:
        raise ConfigurationError(f"this is {cron[:40]!r}, which has {len(cron.split())} fields and not five")
    try:
        expanded, _ = croniter.expand(cron)
    except (CroniterError, ValueError, KeyError) as problem:
        raise ConfigurationError(f"this is {cron[:40]!r}, which is no cron expression ({problem})") from None
    return tuple(tuple(entries) for entries in expanded)


def schedule_document(
    written: str | dict[str, str], timezone: str, spread_seconds: int, repository: str
) -> dict[str, Any]:
    """The schedule of one mirror as the fields of a :class:`~registry_sync.domain.mirrors.MirrorSchedule`.

    An interval that divides an hour or a day becomes a cron expression; any other counts from run to run, and has no
    spread.
    """
    if isinstance(written, dict):
        return {"asset": written["asset"]}
    seconds = duration_seconds(written)
    cron = PRESETS.get(written, written) if seconds is None else _cron_of_interval(seconds)
    if cron is None:
        return {"interval": seconds}
    if spread_seconds >= 60:
        offsets = _offsets(cron, spread_seconds // 60)
        cron = _shifted(cron, offsets[_hash(repository) % len(offsets)])
    elif seconds is None:
        cron = written
    return {"cron": cron, "timezone": timezone}


def _hash(repository: str) -> int:
    return int.from_bytes(hashlib.sha256(repository.encode()).digest()[:8], "big")


def _cron_of_interval(seconds: int) -> str | None:
    minutes, rest = divmod(seconds, 60)
    if rest:
        return None
    if 60 % minutes == 0:
        return "0 * * * *" if minutes == 60 else f"*/{minutes} * * * *"
    hours, rest = divmod(minutes, 60)
    if rest or 24 % hours:
        return None
    return "0 0 * * *" if hours == 24 else f"0 */{hours} * * *"


@lru_cache(maxsize=256)
def _offsets(cron: str, spread_minutes: int) -> tuple[int, ...]:
    """The offsets in minutes, below ``spread_minutes``, by which a cron expression can be shifted; 0 always can."""
    return tuple(offset for offset in range(min(spread_minutes, _DAY_MINUTES)) if _times(cron, offset) is not None)


def _shifted(cron: str, offset: int) -> str:
    times = _times(cron, offset)
    if not offset or times is None:
        return cron
    return " ".join((*times, *cron.split()[2:]))


@lru_cache(maxsize=65_536)
def _times(cron: str, offset: int) -> tuple[str, str] | None:
    """Minute and hour fields of a cron expression, ``offset`` minutes later; None where no two fields say that.

    A day must stay the same unless every day counts.
    """
    minutes, hours, *days = _fields(cron)
    if "*" in minutes:
        minutes = tuple(range(60))
    every_hour = "*" in hours
    every_day = all("*" in field for field in days)
    times = set()
    for hour in range(24) if every_hour else hours:
        for minute in minutes:
            time = hour * 60 + minute + offset
            if time >= _DAY_MINUTES and not every_day:
                return None
            times.add(time % _DAY_MINUTES)
    kept_minutes, kept_hours = {time % 60 for time in times}, {time // 60 for time in times}
    if len(times) != len(kept_minutes) * len(kept_hours):
        return None
    return _field(kept_minutes, 60), _field(kept_hours, 24)


def _field(values: Iterable[int], whole: int) -> str:
    numbers = sorted(values)
    return "*" if len(numbers) == whole else ",".join(map(str, numbers))
