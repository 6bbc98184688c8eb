"""When jobs run and how long they may, from the environment.

Schedules are text: five cron fields in UTC, or `every 15m` (seconds, minutes, hours, days).
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta

EVERY = re.compile(r"every (\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def schedule_of(name: str, usual: str, environ: Mapping[str, str] = os.environ) -> str:
    """The schedule of a job: `SAAS_SCHEDULE_PAYROLL_EXPORT`, else `SAAS_SCHEDULE`, else the usual one."""
    return _setting("SAAS_SCHEDULE", name, environ) or usual


def max_runtime_of(name: str, usual: float, environ: Mapping[str, str] = os.environ) -> float:
    """The seconds that a run may take: `SAAS_MAX_RUNTIME_PAYROLL_EXPORT`, else `SAAS_MAX_RUNTIME`, else the usual."""
    return float(_setting("SAAS_MAX_RUNTIME", name, environ) or usual)


def _setting(of_all: str, name: str, environ: Mapping[str, str]) -> str | None:
    own = f"{of_all}_{name.upper().replace('.', '_')}"
    return environ.get(own) or environ.get(of_all)


def period_of(schedule: str) -> timedelta | None:
    """The time between two runs of `every …`; None for cron fields."""
    every = EVERY.fullmatch(schedule)
    return timedelta(**{UNITS[every[2]]: int(every[1])}) if every else None
