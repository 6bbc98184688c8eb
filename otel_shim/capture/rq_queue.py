"""RQ's queues, read at the broker: depths, the age of the oldest job, and this process's workers.

    rq:queue:<name>           a list of ids, the oldest first; each job knows when it was put in
    wip, scheduled, deferred, failed   registries of the queue

Over a connection of their own for each reading, with time limits. Nothing is cleaned up or changed, which
RQ's own ``count`` of a registry does.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from otel_shim._guard import guarded
from otel_shim.capture.brokers import LIMIT_SECONDS, Broker
from otel_shim.capture.deliveries import moment
from otel_shim.queues import QueueReading

_HEADS = 5
"""Ids looked at from the head: a job may be gone, and one put at the front is younger than the next."""
_queues: dict[str, Any] = {}
"""RQ's own objects for the queues, by name."""
_workers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""The workers and the processes that they are in: RQ forks, and a child has its parent's objects."""


@guarded(default=None)
def watch(queue: Any) -> None:
    """Read a queue from now on, if this process does not yet."""
    if queue.name not in _queues and _broker.watch(queue.name):
        _queues[queue.name] = queue


@guarded(default=None)
def serve(worker: Any) -> None:
    """Read the queues of a worker, which counts from now on."""
    _workers[worker] = os.getpid()
    for queue in worker.queues:
        watch(queue)


def forget() -> None:
    """Read none of them any more; for tests."""
    _broker.forget()
    _queues.clear()
    _workers.clear()


def _read(names: Iterable[str]) -> dict[str, QueueReading]:
    """A reading of each; those of one Redis over one connection."""
    found: dict[str, QueueReading] = {}
    of_pool: dict[int, list[Any]] = {}
    for queue in filter(None, map(_queues.get, names)):
        of_pool.setdefault(id(queue.connection.connection_pool), []).append(queue)
    for together in of_pool.values():
        with _client(together[0].connection) as client:
            found.update({queue.name: _ask(client, queue) for queue in together})
    return found


_broker = Broker(_read)


def _ask(client: Any, queue: Any) -> QueueReading:
    busy, workers = _busy(queue.name)
    with client.pipeline(transaction=False) as pipe:
        pipe.llen(queue.key)
        for registry in (
            queue.started_job_registry,
            queue.scheduled_job_registry,
            queue.deferred_job_registry,
            queue.failed_job_registry,
        ):
            pipe.zcard(registry.key)
        pipe.lrange(queue.key, 0, _HEADS - 1)
        ready, started, scheduled, deferred, failed, heads = pipe.execute()
    keys = [queue.job_class.key_for(_text(job_id)) for job_id in heads]
    age = oldest_age((client.hget(key, "enqueued_at") for key in keys), time.time())
    return QueueReading(ready, started, scheduled + deferred, failed, age, busy, workers)


def oldest_age(since: Iterable[bytes | str | None], now: float) -> float | None:
    """How long the oldest of some jobs has waited; None where none of them is there any more."""
    times = [at for text in since if text and (at := moment(_text(text))) is not None]
    return max(0.0, now - min(times)) if times else None


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _busy(queue: str) -> tuple[int, int]:
    """How many of this process's workers for a queue are at work, and how many there are."""
    here = [worker for worker, pid in list(_workers.items()) if pid == os.getpid()]
    mine = [worker for worker in here if queue in worker.queue_names()]
    return sum(worker.get_state() == "busy" for worker in mine), len(mine)


@contextmanager
def _client(connection: Any) -> Iterator[Any]:
    """A connection as the application's, but with time limits and without its retries."""
    import redis  # noqa: PLC0415 - RQ has imported it
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    pool = connection.connection_pool
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        yield connection  # Sentinel: only its own pool finds the server
        return
    limits = {"socket_timeout": LIMIT_SECONDS, "socket_connect_timeout": LIMIT_SECONDS}
    ours = redis.ConnectionPool(
        pool.connection_class,
        **{**pool.connection_kwargs, **limits, "retry": Retry(NoBackoff(), 0)},
    )
    try:
        yield redis.Redis(connection_pool=ours)
    finally:
        ours.disconnect()
