"""RQ's work horses: a process for each job, whose metrics its worker records.

    worker ─ fork ─▶ horse ─▶ the run: spans and logs, sent before the horse ends (it does by os._exit)
       ▲                └───▶ what the run's metrics are told ─┐
       └────────────────────────── a pipe ─────────────────────┘

Series that live as long as one job say nothing, and each would be a new one. A horse that dies
without a word has its run told by the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from opentelemetry import _logs, trace
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from otel_shim import _semconv as semconv
from otel_shim import counters, jobs, queues
from otel_shim._guard import guarded
from otel_shim.capture import deliveries
from otel_shim.jobs import Course, Ended, Run, Work
from otel_shim.signals import export

_MOST_READ = 1 << 20
"""Bytes; a pipe holds less, but what the job started may still write."""
_LONGEST_LINE = 4096
"""Bytes; ``PIPE_BUF`` of Linux: what is written at once is there whole, or not at all."""
_LONGEST_NAME = 256
_HOLDS = 1 << 14
"""Bytes that a pipe holds at least, where that cannot be asked."""
_MOST_WAITS = 500
_AT_ONCE = 12
"""Queues in a line: with names of 64 characters, of four bytes each, it is not too long."""
_FLUSH_SECONDS = 3.0
_OUTAGE_SECONDS = 0.2
"""Instead, while the worker knows that telemetry cannot be exported: no job is to wait for that."""
_report: int | None = None
"""In a horse: the pipe to its worker."""
_P = TypeVar("_P")
_PIPE = "_otel_shim_pipe"
_BEGAN = "_otel_shim_began"


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
    if (left := vars(worker).pop(_PIPE, None)) is not None:  # of a fork that failed
        os.close(left)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    setattr(worker, _PIPE, reading)
    setattr(worker, _BEGAN, time.time())
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
        pipe = vars(worker).pop(_PIPE, None)
        if pipe is not None:
            _told(worker, args[0] if args else kwargs["job"], _read(pipe))


def _read(pipe: int) -> bytes:
    """What the horse wrote; it has ended, so there is nothing to wait for."""
    text = b""
    try:
        while len(text) < _MOST_READ and (more := os.read(pipe, _MOST_READ)):
            text += more
    except BlockingIOError:  # a process that the job started holds the other end
        return text
    finally:
        os.close(pipe)
    return text


@guarded(default=None)
def _told(worker: Any, job: Any, text: bytes) -> None:
    queues.finished(str(job.origin))
    told = list(_lines(text))
    for each in told:
        _replay(each) if "outcome" in each else _count(each)
    begun = next((each for each in told if "began" in each), None)
    ended = [each.get("span") for each in told if "outcome" in each]
    if begun is not None and begun["span"] not in ended:
        _lost(begun, getattr(worker, _BEGAN))


def _lines(text: bytes) -> Iterator[Mapping[str, Any]]:
    """What the horse told; a line that its end has cut off is not one."""
    for line in text.split(b"\n")[:-1]:
        if (told := _line(line)) is not None:
            yield told


@guarded(default=None)
def _line(line: bytes) -> Mapping[str, Any]:
    """A line; one that is broken is counted, and the others stay."""
    told = json.loads(line)
    if not isinstance(told, dict):
        raise TypeError(f"{type(told).__name__} is no line of a horse")
    return told


@guarded(default=None)
def _count(told: Mapping[str, Any]) -> None:
    """Count what the job did with queues, and what its horse had no room to tell."""
    if left_out := told.get("left_out"):
        counters.add("job_report_left_out", left_out)
    for queue, items in told.get("enqueued", {}).items():
        queues.enqueued(queue, items)
    for queue, items in told.get("finished", {}).items():
        queues.finished(queue, items)
    for queue, seconds in told.get("taken", ()):
        queues.taken(queue, seconds)


@guarded(default=None)
def _replay(told: Mapping[str, Any]) -> None:
    """Record a run of the horse as if it had been here; its span is the horse's."""
    course = Course(
        told["began_at"],
        told["seconds"],
        told["outcome"],
        told["error_type"],
        told["items"],
        told["backlog"],
        told["recovery_point"],
    )
    jobs.took_place(_run(told), course, _context(told["span"]))


def _lost(told: Mapping[str, Any], began: float) -> None:
    """Tell of a run whose horse died: a span of its own, in place of the horse's, which never came."""
    seconds = max(0.0, time.time() - began)
    failed = semconv.SAAS_JOB_OUTCOME_FAILURE
    jobs.took_place(_run(told), Course(began, seconds, failed, "WorkHorseTerminated"))


def _run(told: Mapping[str, Any]) -> Run:
    link, due = told["link"], told["due"]
    return Run(
        told["name"],
        told["system"],
        told["trigger"],
        datetime.fromtimestamp(due, timezone.utc) if due is not None else None,
        told["attempt"],
        told["run_id"],
        link=_context(link) if link is not None else None,
        kind=SpanKind.CONSUMER,
        attributes=told["attributes"],
    )


def _context(ids: list[int]) -> SpanContext:
    return SpanContext(ids[0], ids[1], is_remote=True, trace_flags=TraceFlags(ids[2]))


# --- in the horse --------------------------------------------------------------------------------------


class _ToWorker:
    """What a horse's runs are told to, in place of metrics.

    Nobody reads before the horse has ended, so all of it must fit into the pipe. Other runs get half of
    it: Linux keeps a line on one page, and leaves free what the next one does not fit into, at most half
    of all. The job's own end has its place in any case.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._holds = _holds(pipe)
        self._own: Work | None = None
        self._left_out = 0

    def started(self, work: Work) -> None:
        """Nothing: the job's own run is told of by ``began``, others when they end."""

    def unstarted(self, name: str, outcome: str, count: int) -> None:
        """A horse starts what it has; schedulers live elsewhere."""

    @guarded(default=None)
    def began(self, work: Work) -> None:
        """Tell which run is the job's own, so that the worker can tell of it when the horse cannot."""
        self._own = work
        self._write({**_about(work), "began": True}, self._holds)

    @guarded(default=None)
    def ended(self, ended: Ended) -> None:
        """Tell how a run ended."""
        kind = ended.error_type
        told = {
            **_about(ended.work),
            "outcome": ended.outcome,
            "seconds": ended.seconds,
            "error_type": kind[:_LONGEST_NAME] if kind is not None else None,
            "items": ended.work.items,
            "backlog": ended.work.backlog,
            "recovery_point": ended.work.recovery_point,
        }
        self._write(told, self._holds if ended.work is self._own else self._holds // 2)

    @guarded(default=None)
    def over(self, items: _Items) -> None:
        """Tell what the job did with queues, waits last, and how much of all is not told."""
        for told in items.counted():
            self._write(told, self._holds)
        for waits in items.waits():
            self._write({"taken": waits}, self._holds * 3 // 4, len(waits))
        if self._left_out:
            self._write({"left_out": self._left_out}, self._holds)

    def _write(self, told: Mapping[str, Any], room: int, count: int = 1) -> None:
        """Write a line where the pipe then holds no more than ``room`` bytes; else count it as left out."""
        line = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if len(line) <= _LONGEST_LINE and _written(self._pipe) + len(line) <= room:
            with contextlib.suppress(BlockingIOError):
                os.write(self._pipe, line)
                return
        self._left_out += count


def _holds(pipe: int) -> int:
    """How many bytes a pipe holds; Linux gives less to a user of very many."""
    import fcntl  # noqa: PLC0415 - not on Windows, where no horse is forked

    ask = getattr(fcntl, "F_GETPIPE_SZ", None)
    return int(fcntl.fcntl(pipe, ask)) if ask is not None else _HOLDS


def _written(pipe: int) -> int:
    """How many bytes wait in a pipe, also from processes that the job has forked."""
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


class _Items:
    """What a job does with queues, told when it ends; its own message is the worker's to count."""

    def __init__(self) -> None:
        self.own: str | None = None
        self._enqueued: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._taken: list[tuple[str, float]] = []

    def enqueued(self, queue: str, items: int) -> None:
        """Items were put into a queue."""
        self._enqueued[queue] += items

    def taken(self, queue: str, waited_seconds: float) -> None:
        """An item was taken; of very many only the first."""
        if queue != self.own and len(self._taken) < _MOST_WAITS:
            self._taken.append((queue, round(waited_seconds, 6)))

    def finished(self, queue: str, items: int) -> None:
        """Items are done with."""
        if queue != self.own:
            self._finished[queue] += items

    def counted(self) -> Iterator[dict[str, Any]]:
        """What was put in and is done with, in lines."""
        for name, counts in (("enqueued", self._enqueued), ("finished", self._finished)):
            for some in _some(list(counts.items())):
                yield {name: dict(some)}

    def waits(self) -> Iterator[list[tuple[str, float]]]:
        """How long what was taken had waited, in lines."""
        return _some(self._taken)


def _some(pairs: list[_P]) -> Iterator[list[_P]]:
    return (pairs[at : at + _AT_ONCE] for at in range(0, len(pairs), _AT_ONCE))


_to_worker: _ToWorker | None = None
_items = _Items()


def _about(work: Work) -> dict[str, Any]:
    run = work.run
    return {
        "name": run.name,
        "system": run.system,
        "trigger": run.trigger,
        "attempt": run.attempt,
        "run_id": run.run_id,
        "attributes": dict(run.attributes),
        "link": _ids(run.link or run.parent),
        "span": _ids(work.span.get_span_context()),
        "began_at": work.started_at,
        "due": deliveries.moment(run.scheduled_time),
    }


def _ids(span: SpanContext | None) -> tuple[int, int, int] | None:
    return None if span is None else (span.trace_id, span.span_id, int(span.trace_flags))


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
        _to_worker = _ToWorker(_report)
        jobs.use_recorder(_to_worker)
        queues.use_meter(_items)


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
