"""When jobs run, as text: five cron fields in UTC, or `every 15m` (seconds, minutes, hours, days)."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta

EVERY = re.compile(r"every (\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def schedule_of(name: str, usual: str, environ: Mapping[str, str] = os.environ) -> str:
    """The schedule of a job: `SAAS_SCHEDULE_PAYROLL_EXPORT`, else `SAAS_SCHEDULE`, else the usual one."""
    own = "SAAS_SCHEDULE_" + name.upper().replace(".", "_")
    return environ.get(own) or environ.get("SAAS_SCHEDULE") or usual


def period_of(schedule: str) -> timedelta | None:
    """The time between two runs of `every …`; None for cron fields."""
    every = EVERY.fullmatch(schedule)
    return timedelta(**{UNITS[every[2]]: int(every[1])}) if every else None
