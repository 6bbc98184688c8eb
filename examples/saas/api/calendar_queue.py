"""The queue of published plans: a table that requests write to and workers read from.

An item is taken by setting `taken_at`, deleted when done, and due again later when it failed. One that
failed too often stays, dead, for somebody to look at. What a worker took and never finished, because it
died, is free again after a while.
"""

import time
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from .database import SessionLocal
from .models import QueuedPlan
from .optional_operations import this_request

NAME = "calendar.sync"
# With these delays a calendar server may be away for a quarter of an hour.
MOST_ATTEMPTS = 12
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0
LEASE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Taken:
    """An item that a worker has."""

    id: int
    org_id: str
    plan_id: int
    queued_at: float
    attempts: int
    origin: str | None


@dataclass(frozen=True, slots=True)
class Depths:
    """How many items wait for what, and since when the oldest ready one does (seconds)."""

    ready: int
    in_flight: int
    delayed: int
    dead: int
    oldest_age: float


def added(org_id: str, plan_id: int) -> Insert:
    """The statement that queues a plan; to be run in the transaction that publishes it."""
    now = time.time()
    return insert(QueuedPlan).values(
        org_id=org_id,
        plan_id=plan_id,
        queued_at=now,
        due_at=now,
        attempts=0,
        origin=this_request(),
    )


def take() -> Taken | None:
    """The item that is due longest, if there is one; it belongs to the caller for a while."""
    now = time.time()
    first = select(QueuedPlan.id).where(_ready(now)).order_by(QueuedPlan.due_at, QueuedPlan.id)
    # SQLite has one writer at a time and no such locks.
    chosen = first.limit(1).with_for_update(skip_locked=True).scalar_subquery()
    # Tested again, so that of two workers that chose the same item one gets none.
    taking = (
        update(QueuedPlan)
        .where(QueuedPlan.id == chosen, _ready(now))
        .values(taken_at=now, attempts=QueuedPlan.attempts + 1)
        .returning(
            QueuedPlan.id,
            QueuedPlan.org_id,
            QueuedPlan.plan_id,
            QueuedPlan.queued_at,
            QueuedPlan.attempts,
            QueuedPlan.origin,
        )
        .execution_options(synchronize_session=False)
    )
    with SessionLocal.begin() as session:
        row = session.execute(taking).first()
    return Taken(*row) if row else None


def done(item: Taken) -> None:
    """Remove an item."""
    _change(delete(QueuedPlan).where(QueuedPlan.id == item.id))


def failed(item: Taken) -> None:
    """Give an item back, to be due later each time."""
    delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (item.attempts - 1))
    values = {"taken_at": None, "due_at": time.time() + delay}
    _change(update(QueuedPlan).where(QueuedPlan.id == item.id).values(values))


def depths() -> Depths:
    """Look at the queue."""
    now = time.time()
    states = (_ready(now), _in_flight(now), _delayed(now), _dead(now))
    oldest = func.min(case((_ready(now), QueuedPlan.due_at)))
    with SessionLocal() as session:
        row = session.execute(select(*map(_count, states), oldest)).one()
    ready, in_flight, delayed, dead, since = (value or 0 for value in row)
    return Depths(ready, in_flight, delayed, dead, max(0.0, now - since) if since else 0.0)


def _change(statement: Delete | Update) -> None:
    with SessionLocal.begin() as session:
        session.execute(statement)


def _count(state: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((state, 1), else_=0))


def _free(now: float) -> ColumnElement[bool]:
    return or_(QueuedPlan.taken_at.is_(None), QueuedPlan.taken_at < now - LEASE_SECONDS)


def _alive() -> ColumnElement[bool]:
    return QueuedPlan.attempts < MOST_ATTEMPTS


def _ready(now: float) -> ColumnElement[bool]:
    return and_(_free(now), _alive(), QueuedPlan.due_at <= now)


def _delayed(now: float) -> ColumnElement[bool]:
    return and_(_free(now), _alive(), QueuedPlan.due_at > now)


def _in_flight(now: float) -> ColumnElement[bool]:
    return and_(QueuedPlan.taken_at.is_not(None), QueuedPlan.taken_at >= now - LEASE_SECONDS)


def _dead(now: float) -> ColumnElement[bool]:
    return and_(_free(now), QueuedPlan.attempts >= MOST_ATTEMPTS)
