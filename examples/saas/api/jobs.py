"""What the scheduler runs: functions that say when they are due and what they may take."""

from collections.abc import Callable
from dataclasses import dataclass

from . import faults
from .optional_operations import watched_job
from .schedules import max_runtime_of, schedule_of

Run = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A function and when it is due."""

    name: str
    schedule: str
    run: Run


@dataclass(frozen=True, slots=True)
class Processing:
    """What the GDPR wants to be known of work with personal data.

    The entry in the record of processing activities, the legal basis and how long the data is kept.
    """

    activity: str
    legal_basis: str
    retention: str

    def references(self) -> dict[str, str]:
        """By the names that telemetry knows them by."""
        return {
            "processing_activity_id": self.activity,
            "legal_basis": self.legal_basis,
            "retention_class": self.retention,
        }


JOBS: dict[str, Job] = {}


def job(
    name: str,
    usually: str,
    *,
    max_runtime: float,
    critical: bool = False,
    processing: Processing | None = None,
) -> Callable[[Run], Run]:
    """Have a function run by the scheduler: `usually` is its schedule, `max_runtime` in seconds."""
    schedule = schedule_of(name, usually)
    references = processing.references() if processing else {}
    watched = watched_job(
        name,
        schedule=schedule,
        max_runtime=max_runtime_of(name, max_runtime),
        critical=critical,
        **references,
    )

    def register(function: Run) -> Run:
        run = watched(faults.disturbed(name)(function))
        JOBS[name] = Job(name, schedule, run)
        return run

    return register
