"""The sample's table queue: each item is one worker's at a time, and none is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from sqlalchemy import Engine

from examples.saas.api import calendar_queue as queue
from examples.saas.api.database import SessionLocal

ORG = "org-hotel"


def add(count: int) -> None:
    """Queue the same plan several times."""
    for _ in range(count):
        with SessionLocal.begin() as session:
            session.execute(queue.added(ORG, 5))


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the queue's clock be ahead by so much."""
    now = time.time() + seconds
    monkeypatch.setattr(queue, "time", type("Clock", (), {"time": staticmethod(lambda: now)}))


def test_an_item_goes_through(shop: Engine) -> None:
    """Ready, in flight, gone."""
    assert queue.depths() == queue.Depths(0, 0, 0, 0, 0.0)
    add(2)
    before = queue.depths()
    assert (before.ready, before.in_flight) == (2, 0)
    assert before.oldest_age > 0
    taken = queue.take()
    assert taken is not None
    assert (taken.org_id, taken.plan_id, taken.attempts) == (ORG, 5, 1)
    assert (queue.depths().ready, queue.depths().in_flight) == (1, 1)
    queue.done(taken)
    assert (queue.depths().ready, queue.depths().in_flight) == (1, 0)


def test_an_item_is_one_workers(shop: Engine) -> None:
    """Four workers at once take a hundred items, each once."""
    add(100)
    took: Counter[int] = Counter()

    def work() -> None:
        while (item := queue.take()) is not None:
            took[item.id] += 1
            queue.done(item)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    while (left := queue.take()) is not None:  # who lost a race for one item stops early
        took[left.id] += 1
        queue.done(left)
    assert len(took) == 100
    assert set(took.values()) == {1}


def test_a_failed_item_is_due_later_each_time_and_dies_in_the_end(
    shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delayed after each failure, dead after the last one, and never taken again."""
    add(1)
    for attempt in range(1, queue.MOST_ATTEMPTS + 1):
        item = queue.take()
        assert item is not None
        assert item.attempts == attempt
        queue.failed(item)
        assert queue.take() is None
        at(monkeypatch, queue.FIRST_DELAY_SECONDS * 2**attempt)
    depths = queue.depths()
    assert (depths.ready, depths.delayed, depths.in_flight, depths.dead) == (0, 0, 0, 1)
    assert queue.take() is None


def test_what_a_dead_worker_took_is_free_again(
    shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else has it before; afterwards somebody does."""
    add(1)
    assert queue.take() is not None
    assert queue.take() is None
    at(monkeypatch, queue.LEASE_SECONDS + 1)
    again = queue.take()
    assert again is not None
    assert again.attempts == 2


def test_a_plan_that_was_not_published_is_not_queued(shop: Engine) -> None:
    """The item is part of the transaction that publishes."""
    with SessionLocal() as session:
        session.execute(queue.added(ORG, 5))
        session.rollback()
    assert queue.depths().ready == 0
