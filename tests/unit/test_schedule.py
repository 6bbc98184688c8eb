"""otel_shim.schedule: the longest time between two runs, and texts that are no schedule."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from otel_shim import schedule
from otel_shim.schedule import Schedule, ScheduleError

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("* * * * *", MINUTE),
        ("*/15 * * * *", 15 * MINUTE),
        ("0 3 * * *", DAY),
        ("0 3 * * 1-5", 3 * DAY),
        ("0 3 * * MON", 7 * DAY),
        ("*/5 8-17 * * 1-5", 2 * DAY + 14 * HOUR + 5 * MINUTE),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 31 * *", 61 * DAY),  # from 31 March to 31 May
        ("0 0 1 1 *", 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
        ("0 0 13 * 5", 7 * DAY),  # either, as cron has it
        ("0 12 * * 1#1", 35 * DAY),
        ("  0   3 * * *  ", DAY),
    ],
)
def test_cron(text: str, period: float) -> None:
    """Weekends, short months and leap years count: the longest gap is what a missed run is told by."""
    assert schedule.parse(text, now=NOW) == Schedule(" ".join(text.split()), float(period))


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("every 15m", 15 * MINUTE),
        ("every 30s", 30),
        ("EVERY 2 H", 2 * HOUR),
        ("every 1d", DAY),
    ],
)
def test_intervals(text: str, period: float) -> None:
    """A number and its unit."""
    assert schedule.parse(text).period == period


def test_a_day_with_an_hour_more() -> None:
    """At the end of summer time a day has 25 hours, and nothing is missed for it."""
    assert schedule.parse("0 4 * * *", "Europe/Berlin", NOW).period == 25 * HOUR
    assert schedule.parse("0 4 * * *", None, NOW).period == DAY


@pytest.mark.parametrize(
    "text",
    [
        *("", "0 3 * *", "0 3 * * * *", "a b c d e", "61 * * * *", "0 3 * * 9", "every 0s"),
        *("every m", "every 15x", "every -5m", "@daily", "0 0 30 2 *", "*" * 200, None, 15, b"x"),
    ],
)
def test_what_is_no_schedule(text: object) -> None:
    """Said with the text and the fix."""
    with pytest.raises(ScheduleError, match=r"write five-field cron|does not come true") as caught:
        schedule.parse(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "/etc/passwd", "../../x", "Europe"])
def test_unknown_time_zone(zone: str) -> None:
    """Said, and no file is read for it."""
    with pytest.raises(ScheduleError, match="time zone"):
        schedule.parse("0 3 * * *", zone)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(900.0, "every 15m"), (7200.0, "every 2h"), (86400.0, "every 1d"), (90.0, "every 90s")],
)
def test_an_interval_is_written_as_it_is_read(seconds: float, text: str) -> None:
    """In the largest unit that fits."""
    assert schedule.every(seconds) == schedule.parse(text) == Schedule(text, seconds)
