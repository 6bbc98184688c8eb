"""A queue in a table of PostgreSQL, read over both kinds of engine; prints what was read, as JSON."""

import asyncio
import json
import os
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import otel_shim

URL = os.environ["QUEUE_DATABASE"]
JOBS = sa.Table(
    "jobs",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("state", sa.Enum("new", "running", "failed", "done", name="state")),
    sa.Column("made", sa.DateTime(timezone=True)),
    sa.Column("due", sa.DateTime),
)
STATES = {"ready": ["new"], "in_flight": ["running"], "dead": ["failed"]}
ROWS = (
    ("new", 100, None),
    ("new", 50, 600),
    ("new", 400, -30),
    ("running", 1, None),
    ("failed", 900, None),
    ("done", 9000, None),
)


def row(state: str, age: float, due: float | None) -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    later = (now + timedelta(seconds=due)).replace(tzinfo=None) if due is not None else None
    return {"state": state, "made": now - timedelta(seconds=age), "due": later}


async def main() -> None:
    engine = create_async_engine(URL)
    async with engine.begin() as connection:
        await connection.run_sync(JOBS.metadata.create_all)
        await connection.execute(JOBS.insert(), [row(*each) for each in ROWS])
    both = (engine, sa.create_engine(URL.replace("+asyncpg", "+psycopg")))
    readings = [
        otel_shim.sql_queue(
            each, state=JOBS.c.state, states=STATES, enqueued_at=JOBS.c.made, due_at=JOBS.c.due
        )
        for each in both
    ]
    # As otherwise too: in a thread, while the application's loop has the engine's connections.
    found = [asdict(await asyncio.to_thread(read)) for read in readings]
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
