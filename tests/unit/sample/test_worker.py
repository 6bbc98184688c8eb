"""The sample's workers: nothing that goes wrong with an item ends one, and they say how many they are."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

import otel_shim
from examples.saas import api
from examples.saas.api import calendar_queue as queue
from examples.saas.api import metrics
from examples.saas.api.database import SessionLocal
from examples.saas.api.jobs import Processing

SECONDS = 30.0
WORKER = "examples.saas.api.worker"
LOCKED = OperationalError("UPDATE calendar_queue", {}, Exception("database is locked"))


class Crew:
    """One worker, what it wrote, what it counted, and how its queue is read."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.calendars: Any = ModuleType("examples.saas.api.calendars")
        self.counted: list[str] = []
        self.read: Callable[[], otel_shim.QueueReading] | None = None
        self.stop = threading.Event()
        self.workers: Any = None

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def crew(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Not started. Calendars, whose library is not needed here, take everything."""
    made = Crew()

    def write(_: str, plan_id: int) -> int:
        made.written.append(plan_id)
        return 1

    made.calendars.PROCESSING = Processing("ropa-1", "contract", "r1d")
    made.calendars.write = write
    monkeypatch.setitem(sys.modules, made.calendars.__name__, made.calendars)
    monkeypatch.setattr(api, "calendars", made.calendars, raising=False)
    monkeypatch.delitem(sys.modules, WORKER, raising=False)
    worker = importlib.import_module(WORKER)
    monkeypatch.delitem(sys.modules, WORKER)
    made.workers = worker.Workers(number=1, stop=made.stop)
    monkeypatch.setattr(
        metrics, "worker_failed", lambda name, error: made.counted.append(type(error).__name__)
    )
    monkeypatch.setattr(otel_shim, "queue", lambda name, read: setattr(made, "read", read))
    yield made
    made.stop.set()
    made.workers.join(SECONDS)


def add(*plans: int) -> None:
    """Queue plans."""
    for plan in plans:
        with SessionLocal.begin() as session:
            session.execute(queue.added("org-hotel", plan))


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose first call finds the database locked."""
    calls: list[int] = []

    def call(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise LOCKED
        return function(*args)

    return call


@pytest.mark.parametrize("what", ["take", "done"])
def test_a_locked_database_ends_no_worker(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Counted and logged; it goes on with the next item."""
    monkeypatch.setattr(queue, what, once(getattr(queue, what)))
    add(5, 6)
    crew.workers.start()
    crew.until(lambda: len(crew.written) == 2)
    assert crew.counted == ["OperationalError"]
    assert [each.error_code for each in caplog.records if hasattr(each, "error_code")] == [
        "worker_failed"
    ]
    assert crew.workers.living() == 1
    crew.until(lambda: crew.workers.busy == 0)


def test_an_item_that_can_neither_be_written_nor_given_back(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is free again when its lease is over; the worker goes on meanwhile."""
    monkeypatch.setattr(queue, "failed", once(queue.failed))
    monkeypatch.setattr(crew.calendars, "write", once(crew.calendars.write))
    add(5, 6)
    crew.workers.start()
    crew.until(lambda: crew.written == [6])
    assert crew.counted == ["OperationalError"]
    crew.until(lambda: queue.depths().in_flight == 1)


def test_a_thread_that_is_gone_is_no_worker(crew: Crew) -> None:
    """However many were asked for: with none left somebody has to be told."""
    crew.workers.start()
    assert crew.read is not None
    assert (crew.read().busy, crew.read().workers) == (0, 1)
    crew.stop.set()
    crew.workers.join(SECONDS)
    assert (crew.read().busy, crew.read().workers) == (0, 0)
