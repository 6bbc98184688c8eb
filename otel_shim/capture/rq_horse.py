"""RQ's work horses: a process for each job, whose metrics its worker records.

    worker ─ fork ─▶ horse ─▶ the run: spans and logs, sent before the horse ends (it does by os._exit)
       ▲                └───▶ what is declared, begun and ended, while it happens ─┐   ``rq_telling``
       └────────────────────────── a pipe ─────────────────────────────────────────┘   ``rq_hearing``

Series that live as long as one job say nothing, and each would be a new one. What the horse alone knows,
as the schedule of a job that only it imports, would die with it. A horse that dies without a word has its
run told by the worker.
"""

from __future__ import annotations

import os
import time
from typing import Any

from opentelemetry import _logs, trace

from otel_shim import jobs, queues
from otel_shim._guard import guarded
from otel_shim.capture import deliveries
from otel_shim.capture.rq_hearing import Hearing
from otel_shim.capture.rq_telling import Items, ToWorker
from otel_shim.heartbeats import heartbeats
from otel_shim.signals import calendars, export

_FLUSH_SECONDS = 3.0
_OUTAGE_SECONDS = 0.2
"""Instead, while the worker knows that telemetry cannot be exported: no job is to wait for that."""
_report: int | None = None
"""In a horse: the pipe to its worker."""
_to_worker: ToWorker | None = None
_items = Items()
_HEARING = "_otel_shim_hearing"


# --- in the worker -------------------------------------------------------------------------------------


def fork(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``fork_work_horse(job, queue)``: the horse never returns from it."""
    global _report
    pipe = _open(worker)
    try:
        return wrapped(*args, **kwargs)
    finally:  # in the worker only
        if pipe is not None:
            os.close(pipe)
            _report = None
            _taken(args[0] if args else kwargs["job"])


@guarded(default=None)
def _open(worker: Any) -> int:
    global _report
    if (left := vars(worker).pop(_HEARING, None)) is not None:  # of a fork that failed
        left.over()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    hearing = Hearing(reading)
    setattr(worker, _HEARING, hearing)
    heartbeats.hear_first(hearing.listen)
    _report = writing
    return writing


@guarded(default=None)
def _taken(job: Any) -> None:
    if (since := deliveries.moment(job.enqueued_at)) is not None:
        queues.taken(str(job.origin), time.time() - since)


def monitor(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``monitor_work_horse(job, queue, …)``: returns when the horse has ended, however it did."""
    try:
        return wrapped(*args, **kwargs)
    finally:
        hearing = vars(worker).pop(_HEARING, None)
        if hearing is not None:
            _over(hearing, args[0] if args else kwargs["job"])


@guarded(default=None)
def _over(hearing: Hearing, job: Any) -> None:
    queues.finished(str(job.origin))
    heartbeats.hear_first(None)
    hearing.over()


# --- in the horse --------------------------------------------------------------------------------------


def ride(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``main_work_horse(job, queue)``: the first thing that a horse does."""
    _report_to_worker(args[1] if len(args) > 1 else kwargs["queue"])
    return wrapped(*args, **kwargs)


@guarded(default=None)
def _report_to_worker(queue: Any) -> None:
    global _to_worker
    queues.silence()
    _items.own = queues.label(queue.name)
    if _report is not None:
        os.set_blocking(_report, False)
        _to_worker = ToWorker(_report)
        heartbeats.silence()
        jobs.use_recorder(_to_worker)
        queues.use_meter(_items)
        calendars.tell(_to_worker)


@guarded(default=None)
def began(taken: deliveries.Taken | None) -> None:
    """Tell the worker which run begins, so that it can tell of it when the horse cannot."""
    if _to_worker is not None and taken is not None and taken.work is not None:
        _to_worker.began(taken.work)


def perform(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``perform_job(…)``: what a horse does before it ends, without Python's own exit."""
    try:
        return wrapped(*args, **kwargs)
    finally:
        if worker.is_horse:
            _flush()


@guarded(default=None)
def _flush() -> None:
    """Send spans and logs; metrics too where no worker records them (``SpawnWorker``)."""
    seconds = _OUTAGE_SECONDS if export.is_failing() else _FLUSH_SECONDS
    if _to_worker is None:
        return export.flush(seconds)
    _to_worker.over(_items)
    return export.flush(seconds, (trace.get_tracer_provider(), _logs.get_logger_provider()))
