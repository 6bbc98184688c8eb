"""Figures of the product: quotas, queues, the delay of calendars.

Through OpenTelemetry's own API, which FastAPI depends on: without an SDK all of it does nothing. Nothing
here names an organisation: what belongs to one is in its traces.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from sqlalchemy import ColumnElement, case, func, select

from . import calendar_queue
from .database import SessionLocal
from .models import Organisation, PrivacyRequest, Usage
from .optional_operations import unwatched, watch_queue

Observe = Callable[[CallbackOptions], Iterable[Observation]]

meter = metrics.get_meter("roster")
consumptions = meter.create_counter(
    "saas.quota.consumptions", "{use}", "Uses of a metered feature."
)
calendar_delay = meter.create_histogram(
    "saas.calendar.delay",
    "s",
    "From publishing a plan to the calendars' confirmation.",
    explicit_bucket_boundaries_advisory=[0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
)

worker_errors = meter.create_counter(
    "saas.queue.worker.errors", "{error}", "Items that a worker could not take or put down."
)

USED = func.sum(Usage.used)
LIMIT = func.sum(Usage.quota)
EXHAUSTED = func.sum(case((Usage.used >= Usage.quota, 1), else_=0))


def consumed(feature: str, granted: bool) -> None:
    """Count a use of a metered feature, or that it was refused."""
    outcome = "granted" if granted else "refused"
    consumptions.add(1, {"saas.quota.feature": feature, "saas.quota.outcome": outcome})


def worker_failed(queue: str, error: Exception) -> None:
    """Count that a worker could not take an item, or not put it down."""
    worker_errors.add(1, {"saas.queue.name": queue, "error.type": type(error).__qualname__})


@contextmanager
def calendar_confirms() -> Iterator[None]:
    """Time how long the calendars take to confirm what the block sends them."""
    began = time.monotonic()
    failed: Mapping[str, str] = {}
    try:
        yield
    except Exception as error:
        failed = {"error.type": type(error).__qualname__}
        raise
    finally:
        calendar_delay.record(time.monotonic() - began, failed)


def _quotas(figure: ColumnElement[int]) -> Observe:
    """Reads a figure of the quotas by feature and plan."""
    statement = (
        select(Usage.feature, Organisation.plan, figure)
        .join(Organisation, Organisation.id == Usage.org_id)
        .group_by(Usage.feature, Organisation.plan)
    )

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        with unwatched(), SessionLocal() as session:
            return [
                Observation(int(value), {"saas.quota.feature": feature, "saas.plan": plan})
                for feature, plan, value in session.execute(statement)
            ]

    return observe


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many requests nobody has worked on, and since when the oldest waits (seconds)."""

    ready: int
    oldest_age: float


def _privacy_requests() -> Waiting:
    waiting = select(func.count(), func.min(PrivacyRequest.created_at))
    with SessionLocal() as session:
        count, oldest = session.execute(waiting.where(PrivacyRequest.status == "open")).one()
    if oldest is None:
        return Waiting(0, 0.0)
    # SQLite does not keep the time zone.
    since = oldest.replace(tzinfo=timezone.utc) if oldest.tzinfo is None else oldest
    age = (datetime.now(timezone.utc) - since).total_seconds()
    return Waiting(count, max(0.0, age))


def install() -> None:
    """Have quotas and queues read each time that metrics are exported; once the tables are there."""
    for name, unit, figure in (
        ("saas.quota.used", "{use}", USED),
        ("saas.quota.limit", "{use}", LIMIT),
        ("saas.quota.exhausted", "{organisation}", EXHAUSTED),
    ):
        meter.create_observable_gauge(name, [_quotas(figure)], unit)
    watch_queue("privacy.requests", _privacy_requests)
    # Also here, and not only where its workers are: when they are gone, somebody must say so.
    watch_queue(calendar_queue.NAME, calendar_queue.depths)
