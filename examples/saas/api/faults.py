"""Faults on purpose, to see what alerts and traces say about them. Off unless `SAAS_FAULTS` names a file.

Each line of that file, read anew before every statement, breaks the SQL statements that contain a text:

    fail FROM usage
    slow 0.4 FROM "plan"
"""

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.util import await_only


def install() -> None:
    """Listen to every engine, if there is a file to obey."""
    file = os.environ.get("SAAS_FAULTS")
    if file is None:
        return
    switch = Path(file)

    @event.listens_for(Engine, "do_execute")
    def disturb(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        for line in switch.read_text().splitlines() if switch.exists() else ():
            kind, _, rest = line.partition(" ")
            if kind == "fail" and rest in statement:
                raise sqlite3.OperationalError("database is locked")
            seconds, _, text = rest.partition(" ")
            if kind == "slow" and text in statement:
                _wait(float(seconds), context.dialect.is_async)


def _wait(seconds: float, asynchronous: bool) -> None:
    """As a slow database: other coroutines go on meanwhile."""
    if asynchronous:
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
