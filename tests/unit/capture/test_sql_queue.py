"""otel_shim.capture.sql_queue: a table as a queue, on real engines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import otel_shim
from otel_shim import QueueReading, counters

NOW = time.time()
TABLE = sa.Table(
    "jobs",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("state", sa.String),
    sa.Column("made", sa.DateTime),
    sa.Column("made_at", sa.Float),
    sa.Column("due", sa.DateTime(timezone=True)),
)
STATES = {"ready": ["new", "retry"], "in_flight": ["running"], "dead": ["failed"]}


def at(seconds: float) -> dict[str, Any]:
    moment = datetime.fromtimestamp(NOW + seconds, timezone.utc)
    return {"made": moment.replace(tzinfo=None), "made_at": NOW + seconds}


def row(state: str, seconds: float, due: float | None = None) -> dict[str, Any]:
    aware = datetime.fromtimestamp(NOW, timezone.utc) + timedelta(seconds=due or 0)
    return {"state": state, **at(seconds), "due": aware if due is not None else None}


ROWS = [
    row("new", -300),
    row("new", -10),
    row("retry", -900, due=600),
    row("retry", -900, due=-40),
    row("running", -1000),
    row("failed", -5000),
    row("failed", -6000),
    row("done", -9000),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "jobs.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}")
    TABLE.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(TABLE.insert(), ROWS)
    engine.dispose()
    return str(path)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(f"sqlite:///{url}")
    yield made
    made.dispose()


def check_age(reading: QueueReading, seconds: float) -> None:
    """The age is that since a moment of the test, which took a while itself."""
    assert reading.oldest_age is not None
    assert seconds <= reading.oldest_age <= seconds + (time.time() - NOW)


class TestColumns:
    def test_depths_and_age(self, engine: sa.Engine) -> None:
        """Rows are counted by state, finished ones not at all; the age is the oldest ready one's."""
        read = otel_shim.sql_queue(
            engine, state=TABLE.c.state, states=STATES, enqueued_at=TABLE.c.made_at
        )
        reading = read()
        assert (reading.ready, reading.in_flight, reading.delayed, reading.dead) == (4, 1, None, 2)
        check_age(reading, 900)

    def test_naive_times_are_utc(self, engine: sa.Engine) -> None:
        """A time without a zone is taken as UTC, whatever the host's zone is."""
        read = otel_shim.sql_queue(
            engine, state=TABLE.c.state, states=STATES, enqueued_at=TABLE.c.made
        )
        check_age(read(), 900)

    def test_what_is_not_due_is_delayed(self, engine: sa.Engine) -> None:
        """Rows with a time ahead are delayed; a row waits since it was due, not since it was made."""
        read = otel_shim.sql_queue(
            engine,
            state=TABLE.c.state,
            states=STATES,
            enqueued_at=TABLE.c.made,
            due_at=TABLE.c.due,
        )
        reading = read()
        assert (reading.ready, reading.delayed) == (3, 1)
        check_age(reading, 300)

    def test_an_empty_table_is_an_empty_queue(self, engine: sa.Engine) -> None:
        """Nothing there is 0, not unknown."""
        with engine.begin() as connection:
            connection.execute(TABLE.delete())
        read = otel_shim.sql_queue(
            engine, state=TABLE.c.state, states=STATES, enqueued_at=TABLE.c.made
        )
        assert read() == QueueReading(ready=0, in_flight=0, dead=0)

    def test_one_statement_each(self, engine: sa.Engine) -> None:
        """Two statements make a reading, however many states there are, and none of them writes."""
        seen: list[str] = []
        sa.event.listen(
            engine, "before_cursor_execute", lambda *event: seen.append(event[2].split()[0])
        )
        otel_shim.sql_queue(
            engine,
            state=TABLE.c.state,
            states=STATES,
            enqueued_at=TABLE.c.made,
            due_at=TABLE.c.due,
        )()
        assert seen == ["SELECT", "SELECT"]


def test_statements_of_another_shape(engine: sa.Engine) -> None:
    """Who keeps a queue otherwise gives the two statements."""
    read = otel_shim.sql_queue(
        engine,
        counts=sa.text("SELECT count(*) AS ready, 7 AS dead FROM jobs WHERE state = 'new'"),
        oldest=sa.text("SELECT min(made) FROM jobs WHERE state = 'new'"),
    )
    reading = read()
    assert (reading.ready, reading.dead) == (2, 7)
    check_age(reading, 300)


def test_an_async_engine(url: str) -> None:
    """An async engine is asked outside of the application's event loop, over a connection of our own."""
    engine: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{url}")
    read = otel_shim.sql_queue(
        engine, state=TABLE.c.state, states=STATES, enqueued_at=TABLE.c.made_at
    )
    assert read().ready == 4
    assert isinstance(engine.pool, sa.AsyncAdaptedQueuePool)
    assert engine.pool.checkedin() == engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"state": TABLE.c.state, "states": STATES},
        {"state": TABLE.c.state, "states": {"dead": ["failed"]}, "enqueued_at": TABLE.c.made},
        {
            "state": TABLE.c.state,
            "states": {**STATES, "waiting": ["x"]},
            "enqueued_at": TABLE.c.made,
        },
    ],
)
def test_arguments_that_cannot_be_used(engine: sa.Engine, arguments: dict[str, Any]) -> None:
    """They are said once and counted; the application starts, and each reading is unreadable."""
    read = otel_shim.sql_queue(engine, **arguments)
    assert counters.snapshot()["queue_rejected"] == 1
    with pytest.raises((ValueError, TypeError)):
        read()


def test_a_table_that_is_not_there(engine: sa.Engine) -> None:
    """The database's error is the reading's."""
    TABLE.drop(engine)
    read = otel_shim.sql_queue(engine, state=TABLE.c.state, states=STATES, enqueued_at=TABLE.c.made)
    with pytest.raises(sa.exc.OperationalError):
        read()
