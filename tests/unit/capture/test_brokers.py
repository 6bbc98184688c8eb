"""otel_shim.capture.brokers: queues of one broker, read together."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import pytest

from otel_shim import queues
from otel_shim.capture import brokers
from otel_shim.capture.brokers import Broker
from otel_shim.queues import QueueReading


class Redis:
    """What is asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def read_all(self, names: Iterable[str]) -> dict[str, QueueReading]:
        self.asked.append(list(names))
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return {name: QueueReading(ready=len(name)) for name in names}


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_reads", {})
    monkeypatch.setattr(queues, "_names", set())


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def broker(redis: Redis) -> Broker:
    made = Broker(redis.read_all)
    for name in ("mail", "reports"):
        assert made.watch(name)
    return made


def test_all_are_read_at_once(redis: Redis, broker: Broker) -> None:
    """Each queue has a reading of its own, and the broker was asked once."""
    readings = {name: read() for name, read in queues.registered().items()}
    assert readings == {"mail": QueueReading(ready=4), "reports": QueueReading(ready=7)}
    assert redis.asked == [["mail", "reports"]]


def test_an_error_is_that_of_all(redis: Redis, broker: Broker) -> None:
    """A broker that refuses is asked once, not once for each queue."""
    redis.error = ConnectionError()
    for read in queues.registered().values():
        with pytest.raises(ConnectionError):
            read()
    assert len(redis.asked) == 1


def test_the_next_collection_asks_again(
    redis: Redis, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is not passed off as what is there later."""
    broker.read("mail")
    monkeypatch.setattr(brokers, "_FRESH_SECONDS", 0.0)
    redis.error = ConnectionError()
    with pytest.raises(ConnectionError):
        broker.read("mail")


def test_a_queue_that_comes_later_is_read(redis: Redis, broker: Broker) -> None:
    """A queue that was not in the last reading makes a new one."""
    broker.read("mail")
    broker.watch("new")
    assert broker.read("new") == QueueReading(ready=3)


def test_a_queue_without_a_label_is_not_read(redis: Redis, broker: Broker) -> None:
    """A name that is cut would be read as another queue."""
    assert not broker.watch("q" * 65)
    assert "q" * 64 not in queues.registered()


def test_a_process_that_was_forked_during_a_reading(redis: Redis, broker: Broker) -> None:
    """A lock that a thread of the parent holds does not hold up the child."""
    redis.gate.clear()
    reading = threading.Thread(target=broker.read, args=("mail",))
    reading.start()
    while not redis.asked:
        pass
    child = os.fork()
    if child == 0:
        redis.gate.set()
        answer = threading.Thread(target=broker.read, args=("mail",), daemon=True)
        answer.start()
        answer.join(20)
        os._exit(answer.is_alive())
    _, status = os.waitpid(child, 0)
    redis.gate.set()
    reading.join()
    assert os.waitstatus_to_exitcode(status) == 0
