"""A table as a queue: what is in it, read with one statement for the depths and one for the age.

    SELECT sum(ready?), sum(in_flight?), … FROM jobs WHERE state IN (…)      an index on state serves both
    SELECT min(since when it is ready) FROM jobs WHERE ready?

Nothing is written and nothing locked. SQLAlchemy is imported when a queue is declared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import Any

from otel_shim import _semconv as semconv
from otel_shim import counters
from otel_shim._guard import is_time_limit, logger
from otel_shim.queues import QueueReading, Read

STATES = (
    semconv.SAAS_QUEUE_STATE_READY,
    semconv.SAAS_QUEUE_STATE_IN_FLIGHT,
    semconv.SAAS_QUEUE_STATE_DELAYED,
    semconv.SAAS_QUEUE_STATE_DEAD,
)
_READY, _IN_FLIGHT, _DELAYED, _DEAD = STATES
_Condition = Any
"""A condition on rows, made for the moment of the reading."""


def read_of(
    engine: Any, columns: Mapping[str, Any], counts: Any = None, oldest: Any = None
) -> Read:
    """See ``otel_shim.sql_queue``; where the arguments cannot be used that is said, and each reading fails."""
    try:
        make = _given(counts, oldest) if counts is not None else _made(**columns)
        return _reader(engine, make)
    except Exception as error:  # the application starts all the same
        if is_time_limit(error):
            raise
        counters.add("queue_rejected")
        logger.error(
            "otel_shim.sql_queue: %s: %s; the queue is not read", type(error).__name__, error
        )
        return _failing(error)


def _failing(error: Exception) -> Read:
    def read() -> QueueReading:
        raise error

    return read


_Statements = Callable[[float], tuple[Any, Any]]
"""Gives the statement of the counts and that of the oldest item, for a moment in seconds since 1970."""


def _given(counts: Any, oldest: Any) -> _Statements:
    return lambda _: (counts, oldest)


def _made(
    state: Any,
    states: Mapping[str, Collection[Any]] | None,
    enqueued_at: Any,
    due_at: Any = None,
) -> _Statements:
    """Statements over the columns of a table; ValueError where what they need is missing."""
    if state is None or enqueued_at is None or not states or not states.get(_READY):
        raise ValueError(
            "give state, states with values for ready, and enqueued_at; or counts and oldest"
        )
    if unknown := set(states) - set(STATES):
        raise ValueError(f"{sorted(unknown)} are no states; write {', '.join(STATES)}")
    return lambda at: (
        _counts(state, states, due_at, at),
        _oldest(state, states[_READY], enqueued_at, due_at, at),
    )


def _counts(state: Any, states: Mapping[str, Collection[Any]], due_at: Any, at: float) -> Any:
    from sqlalchemy import case, func, select  # noqa: PLC0415

    conditions = {name: state.in_(list(values)) for name, values in states.items()}
    if due_at is not None:
        late = _is_later(due_at, at)
        waiting = conditions[_READY]
        conditions[_READY] = waiting & ~late
        conditions[_DELAYED] = waiting & late | conditions.get(_DELAYED, waiting & late)
    counted = [
        func.coalesce(func.sum(case((condition, 1), else_=0)), 0).label(name)
        for name, condition in conditions.items()
    ]
    every = [value for values in states.values() for value in values]
    return select(*counted).where(state.in_(every))


def _oldest(state: Any, ready: Collection[Any], enqueued_at: Any, due_at: Any, at: float) -> Any:
    """Since when the oldest ready item is ready: since it was put in, or since it was due."""
    from sqlalchemy import case, func, select  # noqa: PLC0415

    waits = state.in_(list(ready))
    if due_at is None:
        return select(func.min(enqueued_at)).where(waits)
    since = case((due_at > enqueued_at, due_at), else_=enqueued_at)
    return select(func.min(since)).where(waits & ~_is_later(due_at, at))


def _is_later(column: Any, at: float) -> Any:
    """Whether a time lies ahead; one that is not set does not."""
    from sqlalchemy import and_  # noqa: PLC0415

    return and_(column.is_not(None), column > _moment(column, at))


def _moment(column: Any, at: float) -> Any:
    """A moment as the column keeps it: a number, or a datetime with or without a time zone."""
    try:
        kept = column.type.python_type
    except NotImplementedError:
        kept = datetime
    if kept is not datetime:
        return at
    moment = datetime.fromtimestamp(at, timezone.utc)
    return moment if getattr(column.type, "timezone", False) else moment.replace(tzinfo=None)


def _reader(engine: Any, make: _Statements) -> Read:
    is_async = hasattr(engine, "sync_engine")

    def read() -> QueueReading:
        counts, oldest = make(time.time())
        if is_async:
            row, since = asyncio.run(_ask_async(engine, counts, oldest))
        else:
            with engine.connect() as connection:
                row, since = _ask(connection, counts, oldest)
        return _reading(row, since)

    return read


def _ask(connection: Any, counts: Any, oldest: Any) -> tuple[Mapping[str, Any], Any]:
    row = connection.execute(counts).mappings().one()
    return dict(row), connection.execute(oldest).scalar() if oldest is not None else None


async def _ask_async(engine: Any, counts: Any, oldest: Any) -> tuple[Mapping[str, Any], Any]:
    """Ask over a connection of our own: the application's are bound to its event loop."""
    from sqlalchemy.engine import Engine  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: PLC0415

    theirs = engine.sync_engine
    ours = AsyncEngine(Engine(theirs.pool.recreate(), theirs.dialect, theirs.url))
    try:
        async with ours.connect() as connection:
            return await connection.run_sync(_ask, counts, oldest)
    finally:
        await ours.dispose()


def _reading(row: Mapping[str, Any], since: Any) -> QueueReading:
    known = {name: int(row[name]) for name in STATES if row.get(name) is not None}
    return QueueReading(**known, oldest_age=_age(since, time.time()))


def _age(since: Any, now: float) -> float | None:
    """Seconds since a moment, none before it; None where there is no moment."""
    if since is None:
        return None
    if isinstance(since, str):  # SQLite gives text where a statement hides the column's type
        since = datetime.fromisoformat(since)
    if isinstance(since, datetime):
        since = (since if since.tzinfo else since.replace(tzinfo=timezone.utc)).timestamp()
    return max(0.0, now - float(since))
