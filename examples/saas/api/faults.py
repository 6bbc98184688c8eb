"""Faults on purpose, to see what alerts and traces say about them. Off unless `SAAS_FAULTS` names a file.

Each line of that file, read anew every time, breaks one thing. SQL statements that contain a text,
requests to a path before they have a route, the jobs of `python -m api.scheduler`, the worker of the calendar queue, and backups:

    fail FROM usage
    slow 0.4 FROM "plan"
    middleware fail /auth/me
    job fail payroll.export
    job slow 5 payroll.export
    job hang payroll.export
    worker stop
    worker slow 2
    backup corrupt

What hangs or stops goes on when its line is gone. The partner and the calendar server have lines of
their own: connector/faults.py.
"""

import asyncio
import functools
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, event
from sqlalchemy.util import await_only

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

LOOK_SECONDS = 0.1


class JobFault(Exception):
    """A job that fails on purpose."""


class RequestFault(Exception):
    """A middleware that fails on purpose."""


def before_routing(path: str) -> None:
    """Fail when the path's line is there."""
    if on(f"middleware fail {path}"):
        raise RequestFault(path)


def install() -> None:
    """Listen to every engine, if there is a file to obey."""
    if "SAAS_FAULTS" not in os.environ:
        return

    @event.listens_for(Engine, "do_execute")
    def disturb(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        for line in lines():
            kind, _, rest = line.partition(" ")
            if kind == "fail" and rest in statement:
                raise sqlite3.OperationalError("database is locked")
            seconds, _, text = rest.partition(" ")
            if kind == "slow" and text in statement:
                _wait(float(seconds), context.dialect.is_async)


def lines() -> list[str]:
    """What is switched on now."""
    file = os.environ.get("SAAS_FAULTS")
    if file is None:
        return []
    try:
        return Path(file).read_text().splitlines()
    except FileNotFoundError:
        return []


def on(line: str) -> bool:
    """Whether this line is there."""
    return line in lines()


def seconds(start: str, end: str = "") -> float:
    """The number between two texts of a line, as 5 in `job slow 5 payroll.export`; 0 without such a line."""
    for line in lines():
        if line.startswith(f"{start} ") and line.endswith(end):
            return float(line.removeprefix(f"{start} ").removesuffix(end))
    return 0.0


def disturbed(name: str) -> Callable[[AnyFunction], AnyFunction]:
    """Let a job fail, take longer or hang when its line is there."""

    def wrap(function: AnyFunction) -> AnyFunction:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds("job slow", f" {name}"))
            hold(f"job hang {name}")
            if on(f"job fail {name}"):
                raise JobFault(name)
            return function(*args, **kwargs)

        return run  # type: ignore[return-value]

    return wrap if "SAAS_FAULTS" in os.environ else _unchanged


def hold(line: str) -> None:
    """Wait as long as a line is there."""
    while on(line):
        time.sleep(LOOK_SECONDS)


def _unchanged(function: AnyFunction) -> AnyFunction:
    return function


def _wait(seconds: float, asynchronous: bool) -> None:
    """As a slow database: other coroutines go on meanwhile."""
    if asynchronous:
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
