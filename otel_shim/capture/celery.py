"""Celery: sending, waiting and running a task as one story, and its queues; zero code.

    AMQP.send_task_message ─▶ span `send <task>` ─▶ before_task_publish: headers of the message
    task_prerun, task_postrun ─▶ the run of the job          (in the process of the pool that works)
    Request.on_timeout, .on_failure ─▶ a run whose process was killed      (in the worker's main one)
    worker_ready, sending ─▶ queues that are read at the broker, see ``celery_queue``

Takes the place of the official instrumentor, which records what exceptions say, and whose context stays
open where a task is sent by its name only or cannot be sent (see docs/decisions/0010-queues.md).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import wrapt
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import get_meter_provider

from otel_shim import _semconv as semconv
from otel_shim import jobs, queues
from otel_shim._guard import guarded, is_time_limit
from otel_shim.capture import celery_queue, deliveries
from otel_shim.capture.deliveries import ENQUEUED_AT, QUEUE, Delivery
from otel_shim.capture.patches import Patches
from otel_shim.jobs import Course
from otel_shim.signals import export

_SYSTEM = semconv.SAAS_JOB_SYSTEM_CELERY
_BY_BEAT = "celery_beat_task"
_EXIT_SECONDS = 2.0
"""How long the end of a pool's process waits for its last telemetry."""
_KILLED = (SystemExit, KeyboardInterrupt)
"""What a signal to end becomes in a process of the pool; soon after, it is killed."""
_LOST = ("WorkerLostError", "Terminated", "SystemExit", "KeyboardInterrupt")
_main_process: int | None = None
_in_pool = False
"""Whether this is a process of the pool, whose end the worker's main process sees."""


class CeleryInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments Celery, when the application imports it.

    ``instrument`` takes ``relation`` (``link`` or ``parent``; the default is the environment's) and
    ``meter_provider`` (the default is the global one).
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("celery >= 5.3, < 6",)

    def _instrument(self, **kwargs: Any) -> None:
        if (relation := kwargs.get("relation")) is not None:
            deliveries.use_relation(relation)
        deliveries.record(kwargs.get("meter_provider") or get_meter_provider())
        self._patches = Patches()
        wrap = self._patches.when_imported
        wrap("celery.app.amqp", "AMQP._create_task_sender", _sender)
        wrap("celery.worker.request", "Request.on_timeout", _timed_out)
        wrap("celery.worker.request", "Request.on_failure", _failed)
        self._connected = _Connected()
        wrapt.register_post_import_hook(self._connected.connect, "celery.signals")

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()
        self._connected.disconnect()


class _Connected:
    """Our receivers of Celery's signals."""

    def __init__(self) -> None:
        self._wanted = True
        self._signals: Any = None

    @guarded(default=None)
    def connect(self, signals: Any) -> None:
        """Receive them, unless that is no longer wanted."""
        if self._wanted:
            self._signals = signals
            for name, receiver in _RECEIVERS.items():
                getattr(signals, name).connect(receiver, weak=False)

    def disconnect(self) -> None:
        """Receive them no more."""
        self._wanted = False
        if self._signals is not None:
            for name, receiver in _RECEIVERS.items():
                getattr(self._signals, name).disconnect(receiver)


# --- sending -------------------------------------------------------------------------------------------


def _sender(wrapped: Any, amqp: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What sends tasks, with a span around each; an error passes unchanged."""
    send = wrapped(*args, **kwargs)

    def send_task_message(producer: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_instrumentation_enabled():
            return send(producer, name, *args, **kwargs)
        sending = deliveries.sending(_SYSTEM, str(name))
        try:
            result = send(producer, name, *args, **kwargs)
        except BaseException as error:
            if sending is not None:
                sending.end(error)
            raise
        if sending is not None:
            sending.end()
            celery_queue.watch(amqp.app, sending.to_name or None)
        return result

    return send_task_message


@guarded(default=None)
def _before_publish(
    headers: Any = None, declare: Any = None, routing_key: Any = None, **_: Any
) -> None:
    """Write into the message; protocol 1, which has no headers, carries nothing."""
    sending = deliveries.at_hand()
    if sending is None or not headers or sending.queue is not None:
        return
    queue = declare[0].name if declare else routing_key
    sending.to(str(queue), headers.get("id"))
    deliveries.mark(headers, queues.label(queue))


# --- running -------------------------------------------------------------------------------------------


@guarded(default=None)
def _prerun(task: Any = None, task_id: Any = None, **_: Any) -> None:
    if task is not None and task_id is not None:
        deliveries.take(_delivery(task, str(task_id), vars(task.request)))


def _delivery(task: Any, task_id: str, headers: Mapping[str, Any]) -> Delivery:
    """What is known of a message, which Celery's workers spread over a request's attributes."""
    retries = headers.get("retries") or 0
    route = headers.get("delivery_info") or {}
    return Delivery(
        _SYSTEM,
        _name_of(task),
        str(headers.get(QUEUE) or route.get("routing_key") or "celery"),
        task_id,
        deliveries.producer_of(headers),
        deliveries.moment(headers.get(ENQUEUED_AT)),
        deliveries.moment(headers.get("eta")),
        int(retries) + 1,
        _trigger(int(retries), bool(headers.get(_BY_BEAT))),
    )


def _name_of(task: Any) -> str:
    """The job's name as it is declared with ``otel_shim.job``, else the task's."""
    return jobs.declared_name(getattr(task, "run", None)) or str(task.name)


def _trigger(retries: int, by_beat: bool) -> str:
    if retries:
        return semconv.SAAS_JOB_TRIGGER_RETRY
    return semconv.SAAS_JOB_TRIGGER_SCHEDULE if by_beat else semconv.SAAS_JOB_TRIGGER_MANUAL


@guarded(default=None)
def _postrun(task_id: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
    taken = deliveries.taken_here(str(task_id))
    if taken is None:
        return None
    error = _error(state, retval)
    if _in_pool and isinstance(
        error, _KILLED
    ):  # the worker's main process tells of it, in any case
        return taken.leave()
    timed_out = is_time_limit(error)
    return taken.end(error, semconv.SAAS_JOB_OUTCOME_TIMEOUT if timed_out else None)


def _error(state: Any, retval: Any) -> BaseException | None:
    """What ended a task badly: for a retry what it is retried for, for a dying worker what is on its way."""
    if state in ("SUCCESS", "IGNORED"):
        return None
    if state is None:
        return sys.exc_info()[1]
    cause = getattr(retval, "exc", None) if state == "RETRY" else retval
    if isinstance(cause, BaseException):
        return cause
    return retval if isinstance(retval, BaseException) else None


# --- a run whose process was killed --------------------------------------------------------------------


def _timed_out(wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Request.on_timeout(soft, timeout)``: after the hard limit the pool kills the process."""
    soft = args[0] if args else kwargs.get("soft")
    if not soft:
        _lost(request, "TimeLimitExceeded", semconv.SAAS_JOB_OUTCOME_TIMEOUT)
    return wrapped(*args, **kwargs)


def _failed(wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Request.on_failure(exc_info, …)``: most failures were seen where they happened."""
    _lost_by(request, args[0] if args else kwargs.get("exc_info"))
    return wrapped(*args, **kwargs)


@guarded(default=None)
def _lost_by(request: Any, exc_info: Any) -> None:
    error = getattr(exc_info, "exception", None)
    error = getattr(error, "exc", error)
    kind = type(error).__name__
    if kind in _LOST:
        _lost(request, kind, semconv.SAAS_JOB_OUTCOME_FAILURE)


@guarded(default=None)
def _lost(request: Any, kind: str, outcome: str) -> None:
    """Tell of a run what its own process can tell no more; when it began, the pool has said."""
    delivery = _delivery(request.task, str(request.id), dict(request.request_dict))
    now = time.time()
    began = request.time_start or now
    course = Course(began, max(0.0, now - began), outcome, kind)
    jobs.took_place(delivery.run(), course)
    queues.finished(delivery.queue)


# --- processes -----------------------------------------------------------------------------------------


@guarded(default=None)
def _worker_begins(**_: Any) -> None:
    global _main_process
    _main_process = os.getpid()


@guarded(default=None)
def _worker_ready(sender: Any = None, **_: Any) -> None:
    """The worker's main process reads the queues that it consumes, and says how busy its pool is."""
    celery_queue.serve(sender)


@guarded(default=None)
def _pool_process_started(**_: Any) -> None:
    global _in_pool
    if (
        os.getpid() == _main_process
    ):  # the solo pool sends the signal where there is only one process
        return
    _in_pool = True
    queues.silence()


@guarded(default=None)
def _pool_process_ends(**_: Any) -> None:
    """The pool ends its processes without Python's own exit."""
    export.flush(_EXIT_SECONDS)


_RECEIVERS: dict[str, Callable[..., None]] = {
    "before_task_publish": _before_publish,
    "task_prerun": _prerun,
    "task_postrun": _postrun,
    "worker_init": _worker_begins,
    "worker_ready": _worker_ready,
    "worker_process_init": _pool_process_started,
    "worker_process_shutdown": _pool_process_ends,
}
