"""When a job is to run: five-field cron, or ``every 15m``; and the longest time between two runs. Pure.

Cron as Debian's: ``cronsim`` reads it, daylight saving time included. ``period`` is what tells a missed
run from one that is not due: for ``0 3 * * 1-5`` three days, because nothing runs at the weekend.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

UTC = timezone.utc
_EVERY = re.compile(r"every\s+(\d{1,6})\s*(s|m|h|d)", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FIELDS = 5
_LONGEST = 128
_RUNS = 370
"""Runs that are looked at: a year of a daily job."""
_SPAN = timedelta(days=8 * 366)
"""Time that is looked at: two leap days, for what runs on the 29th of February."""
_SHORTEST_SPAN = timedelta(days=10)
"""Time that is looked at in any case: a whole week, so that nights and weekends are seen."""
_MOST_RUNS = 15_000
"""Runs in ten days of a job that runs each minute, and a few."""


class ScheduleError(ValueError):
    """A schedule cannot be read; the text names it and the fix."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it is written, if it can be, and the longest time between two runs in seconds."""

    text: str | None
    period: float


def parse(text: object, zone: tzinfo | str | None = None, now: datetime | None = None) -> Schedule:
    """Read a schedule; ScheduleError where it, or its time zone, cannot be read or never comes true.

    ``now`` is where the search for the longest gap starts; it is today where nothing is given.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise _error(text)
    text = " ".join(text.split())
    if (interval := _EVERY.fullmatch(text)) is not None:
        seconds = int(interval[1]) * _SECONDS[interval[2].lower()]
        if seconds == 0:
            raise _error(text)
        return Schedule(text, float(seconds))
    if len(text.split()) != _FIELDS:
        raise _error(text)
    return Schedule(text, _longest_gap(text, (now or datetime.now(UTC)).astimezone(zone_of(zone))))


def every(seconds: float) -> Schedule:
    """The schedule of an interval, in the largest unit that it is a multiple of."""
    unit = next((u for u in "dhm" if seconds % _SECONDS[u] == 0), "s")
    return Schedule(f"every {seconds / _SECONDS[unit]:g}{unit}", seconds)


def zone_of(zone: tzinfo | str | None) -> tzinfo:
    """A time zone by its name or itself, UTC by default; ScheduleError for one that is not known."""
    if zone is None:
        return UTC
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, TypeError, KeyError):
        raise ScheduleError(
            f"cannot find the time zone {str(zone)[:64]!r}; write one of the IANA database, for example "
            "'Europe/Berlin' (some systems need the package tzdata for them)"
        ) from None


def _longest_gap(text: str, start: datetime) -> float:
    """The longest time between two runs, from a sample of them long enough for what the text can say."""
    try:
        runs = _runs(text, start)
    except CronSimError:
        raise _error(text) from None
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(runs)]
    if not gaps:
        raise ScheduleError(
            f"the schedule {text!r} does not come true twice within fifty years; "
            "check day of month and month"
        )
    return max(gaps)


def _runs(text: str, start: datetime) -> list[datetime]:
    """Runs from a start on; in UTC, where a difference is the time that passes."""
    simulated = CronSim(text, start)
    runs: list[datetime] = []
    for run in islice(simulated, _MOST_RUNS):
        runs.append(run.astimezone(UTC))
        seen = runs[-1] - runs[0]
        if len(runs) > 2 and (seen > _SPAN or (len(runs) > _RUNS and seen > _SHORTEST_SPAN)):
            break
    return runs


def _error(text: object) -> ScheduleError:
    return ScheduleError(
        f"cannot read the schedule {str(text)[:80]!r}; write five-field cron, for example '0 3 * * *', "
        "or 'every 15m' (s, m, h, d)"
    )
