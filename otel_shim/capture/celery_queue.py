"""Celery's queues on Redis, read at the broker: depths, the age of the oldest message, workers.

    one list for each queue and priority   the oldest message is the last
    the hash `unacked`                     what workers have taken: at work, prefetched, or waiting for its time

Over a connection of their own for each reading, with time limits. Other brokers are not read.
"""

from __future__ import annotations

import json
import sys
import time
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from otel_shim._guard import guarded
from otel_shim.capture.brokers import LIMIT_SECONDS, Broker
from otel_shim.capture.deliveries import ENQUEUED_AT, QUEUE, moment
from otel_shim.queues import QueueReading

_PAGE = 200
_MOST_UNACKED = 1000
"""Messages looked at among those that workers have; where there are more, these stand for all."""
_MOST_BYTES = 4 << 20
"""Of messages looked at in one reading, and of one message: they hold the tasks' arguments."""
_brokers: weakref.WeakKeyDictionary[Any, Broker] = weakref.WeakKeyDictionary()
"""The broker of each of Celery's applications."""
_consumer: weakref.ref[Any] | None = None


@guarded(default=None)
def watch(app: Any, queue: str | None) -> None:
    """Read a queue from now on, if this process does not yet."""
    if queue is not None:
        broker = _brokers.get(app)
        if broker is None:
            broker = _brokers[app] = Broker(partial(_read, weakref.ref(app)))
        broker.watch(queue)


def serve(consumer: Any) -> None:
    """Read the queues of a worker, whose pool counts from now on."""
    global _consumer
    _consumer = weakref.ref(consumer)
    for queue in list(consumer.app.amqp.queues.consume_from):
        watch(consumer.app, queue)


def forget() -> None:
    """Read none of them any more; for tests."""
    global _consumer
    _consumer = None
    for broker in list(_brokers.values()):
        broker.forget()
    _brokers.clear()


def _read(held: weakref.ref[Any], names: Iterable[str]) -> dict[str, QueueReading]:
    app = held()
    if app is None:
        return {}
    busy, workers = _pool()
    limits = {"socket_timeout": LIMIT_SECONDS, "socket_connect_timeout": LIMIT_SECONDS}
    connection = app.connection_for_read(connect_timeout=LIMIT_SECONDS, transport_options=limits)
    with connection:
        if connection.transport.driver_type != "redis":
            return {name: QueueReading(busy=busy, workers=workers) for name in names}
        with connection.channel() as channel:
            return {name: _on_redis(channel, name, busy, workers) for name in names}


def _pool() -> tuple[int, int]:
    """How many of this process's workers are at work, and how many there are; none where it has no pool."""
    consumer = _consumer() if _consumer is not None else None
    if consumer is None or consumer.pool is None:
        return 0, 0
    state = sys.modules["celery.worker.state"]  # there is a worker, so it is imported

    workers = int(consumer.pool.num_processes)
    return min(len(state.active_requests), workers), workers


class Taken(NamedTuple):
    """Messages of one queue that workers have: at work or about to, and waiting for their time."""

    in_flight: int
    delayed: int


def _on_redis(channel: Any, queue: str, busy: int, workers: int) -> QueueReading:
    import redis  # noqa: PLC0415 - the transport has imported it

    # Kombu's own client puts the prefix before the keys of some commands only.
    client = redis.Redis(connection_pool=channel.client.connection_pool)
    prefix = channel.global_keyprefix
    names = [f"{queue}{channel.sep}{step}" if step else queue for step in channel.priority_steps]
    keys = [prefix + name for name in names]
    unacked = f"{prefix}{channel.unacked_key}"
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.llen(key)
        for key in keys:
            pipe.lindex(key, -1)
        pipe.hlen(unacked)
        *found, total = pipe.execute()
    ready, heads = sum(found[: len(keys)]), found[len(keys) :]
    taken = _taken(client, unacked, total, queue)
    age = oldest_age((head for head in heads if head is not None), time.time())
    return QueueReading(
        ready, taken.in_flight, taken.delayed, oldest_age=age, busy=busy, workers=workers
    )


def _taken(client: Any, key: str, total: int, queue: str) -> Taken:
    messages: list[bytes] = []
    size = 0
    for _, value in client.hscan_iter(key, count=_PAGE) if total else ():
        messages.append(value)
        size += len(value)
        if len(messages) >= _MOST_UNACKED or size >= _MOST_BYTES:
            break
    found = of_queue(messages, queue, time.time())
    share = max(1.0, total / len(messages)) if messages else 1.0
    return Taken(round(found.in_flight * share), round(found.delayed * share))


def oldest_age(heads: Iterable[bytes], now: float) -> float | None:
    """How long the oldest of some messages has waited; None where their producers did not write it down."""
    since = [at for head in heads if (at := _since(_headers(_parsed(head)))) is not None]
    return max(0.0, now - min(since)) if since else None


def of_queue(messages: Iterable[bytes], queue: str, now: float) -> Taken:
    """How many of the messages that workers have are of a queue."""
    in_flight = delayed = 0
    for message in messages:
        parsed = _parsed(message)
        body, _, routing_key = (
            parsed if isinstance(parsed, list) and len(parsed) == 3 else (None,) * 3
        )
        headers = _headers(body)
        if (headers.get(QUEUE) or routing_key) != queue:
            continue
        due = moment(headers.get("eta"))
        if due is not None and due > now:
            delayed += 1
        else:
            in_flight += 1
    return Taken(in_flight, delayed)


def _parsed(message: bytes) -> Any:
    """A message as it is in Redis; None for what is none, and for one that takes long to read."""
    if len(message) > _MOST_BYTES:
        return None
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None


def _headers(message: Any) -> Mapping[str, Any]:
    headers = message.get("headers") if isinstance(message, dict) else None
    return headers if isinstance(headers, dict) else {}


def _since(headers: Mapping[str, Any]) -> float | None:
    enqueued, due = moment(headers.get(ENQUEUED_AT)), moment(headers.get("eta"))
    return max(enqueued, due or 0.0) if enqueued is not None else None
