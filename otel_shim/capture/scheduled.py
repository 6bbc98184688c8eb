"""What APScheduler sends to a process pool: a plain function, and when runs were due. Imports next to nothing.

A child that is started for a job reads these first, and the job's function after them. What telemetry takes
to be imported is not held against the job: its run is late by APScheduler's own reckoning, not by ours.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from datetime import datetime
from typing import Any

from otel_shim import _semconv as semconv
from otel_shim import startup

_RUNS = "otel_shim.capture.scheduled_runs"


class RunTimes(list[datetime]):
    """When runs were due, and what the scheduler's process knows of them; pickled with the job."""

    name = ""
    trigger = semconv.SAAS_JOB_TRIGGER_SCHEDULE
    since = 0.0
    """When this process began to schedule; what was due before is caught up."""
    link: tuple[int, int, int] | None = None
    """Trace, span and flags of what asked for the job."""
    scheduler = 0
    """The id of the scheduler's process."""


def run_job(job: Any, jobstore_alias: str, run_times: list[datetime], logger_name: str) -> Any:
    """``apscheduler.executors.base.run_job``, each run as one of ``jobs``."""
    runs = sys.modules.get(_RUNS) or _import_runs()
    if isinstance(run_times, RunTimes) and run_times.scheduler not in (0, os.getpid()):
        _be_patient(job, run_times)
    return runs.run_jobs(job, jobstore_alias, run_times, logger_name)


def _import_runs() -> Any:
    with startup.setting_up():
        return importlib.import_module(_RUNS)


def _be_patient(job: Any, run_times: RunTimes) -> None:
    """Let a job be later by what telemetry took meanwhile; in another process than the scheduler's it is a copy.

    What was due before the scheduler began waited for that, not for telemetry.
    """
    grace = job.misfire_grace_time
    waiting = max(run_times[0].timestamp(), run_times.since) if run_times else math.inf
    spent = startup.spent_since(waiting)
    if grace is not None and spent > 0:
        job.misfire_grace_time = grace + math.ceil(spent)
