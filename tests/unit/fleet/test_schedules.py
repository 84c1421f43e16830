"""Schedules are spread by an offset that a mirror's name decides, and that Airflow can show."""

from __future__ import annotations

import pytest
from croniter import croniter

from registry_sync.fleet.schedules import PRESETS, check_schedule, schedule_document

NAMES = [f"team/app-{number}" for number in range(60)]


def crons(written: str, spread_seconds: int) -> set[str]:
    return {schedule_document(written, "UTC", spread_seconds, name)["cron"] for name in NAMES}


def minutes_of_a_week(cron: str) -> set[int]:
    """The minutes of a week at which a cron fires."""
    start = 1_767_225_600 - 3 * 86_400  # a Monday
    found = croniter(cron, start - 60)
    times = set()
    while (time := (int(found.get_next()) - start) // 60) < 7 * 24 * 60:
        times.add(time)
    return times


def test_without_a_spread_a_schedule_is_as_it_is_written() -> None:
    for written in ("30 3 * * 1-5", *PRESETS):
        assert crons(written, 0) == {written}
    assert schedule_document({"asset": "oci://a/b"}, "UTC", 3600, "a") == {"asset": "oci://a/b"}


@pytest.mark.parametrize(
    ("written", "spread_minutes"),
    [("@daily", 120), ("@hourly", 60), ("*/15 * * * *", 15), ("30 3 * * 1-5", 240), ("0 0 * * *", 1440), ("6h", 360),
     ("0,30 3 * * *", 120), ("5 23 * * 5", 600), ("10 1-4 * * *", 45), ("0 22 1 * *", 300)],
)  # fmt: skip
def test_mirrors_are_spread_by_whole_offsets_of_the_schedule(written: str, spread_minutes: int) -> None:
    spread = crons(written, spread_minutes * 60)
    assert len(spread) > 10
    (plain,) = crons(written, 0)
    base = minutes_of_a_week(PRESETS.get(plain, plain))
    for cron in sorted(spread)[:5]:
        shifts = ({(time + offset) % (7 * 1440) for time in base} for offset in range(spread_minutes))
        assert minutes_of_a_week(cron) in shifts


def test_a_day_stays_the_day() -> None:
    for cron in sorted(crons("30 23 * * 1", 86_400))[:5]:
        assert {time // 1440 for time in minutes_of_a_week(cron)} == {0}


def test_a_mirror_keeps_its_time() -> None:
    assert schedule_document("@daily", "UTC", 7200, "library/alpine") == {"cron": "39 0 * * *", "timezone": "UTC"}


@pytest.mark.parametrize(
    ("written", "made"),
    [("6h", {"cron": "0 */6 * * *"}), ("1h", {"cron": "0 * * * *"}), ("15m", {"cron": "*/15 * * * *"}),
     ("1d", {"cron": "0 0 * * *"}), ("24h", {"cron": "0 0 * * *"}), ("5h", {"interval": 18_000}),
     ("45m", {"interval": 2700}), ("2w", {"interval": 1_209_600}), ("90s", {"interval": 90})],
)  # fmt: skip
def test_an_interval_is_a_cron_where_it_divides_a_day(written: str, made: dict[str, object]) -> None:
    found = schedule_document(written, "Europe/Berlin", 0, "a")
    assert found == (made if "interval" in made else {**made, "timezone": "Europe/Berlin"})


@pytest.mark.parametrize("written", ["0 0 * * mon#1", "*/5 1-3 1,15 * *", "@yearly", "1d12h"])
def test_what_airflow_reads_is_accepted(written: str) -> None:
    check_schedule(written)
