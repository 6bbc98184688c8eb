"""What the worker of RQ hears from a work horse, and records as if the run had been here; see ``rq_telling``.

A horse may run for hours, or hang: what it tells is taken in whenever somebody looks at the heartbeats of
this process, which every collection of metrics does, and once more when the horse has ended.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from otel_shim import _semconv as semconv
from otel_shim import counters, jobs, queues
from otel_shim._guard import guarded
from otel_shim.calendars import Items, Synchronisation
from otel_shim.heartbeats import Declaration
from otel_shim.jobs import Course, Run, Work
from otel_shim.locks import Locked
from otel_shim.signals import calendars
from otel_shim.signals.calendar_successes import Key

_MOST_READ = 1 << 20
"""Bytes at once; a pipe holds less, but what the job started may still write."""
_Ids = tuple[int, ...]


class Hearing(Locked):
    """What one horse tells, from its fork to its end; taken in by whichever thread asks."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe: int | None = pipe
        self._rest = b""
        self._at_work: dict[_Ids, Work] = {}

    @guarded(default=None)
    def listen(self) -> None:
        """Take in what the horse has told meanwhile."""
        with self._lock:
            if self._pipe is not None:
                self._hear(self._pipe)

    @guarded(default=None)
    def over(self) -> None:
        """The horse has ended: take in its last words, and tell of each run that has none."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
            if pipe is None:
                return
            try:
                self._hear(pipe)
            finally:
                os.close(pipe)
            while self._at_work:
                _lose(self._at_work.popitem()[1])

    def _hear(self, pipe: int) -> None:
        *lines, self._rest = (self._rest + _read(pipe)).split(b"\n")
        for told in _told(lines):
            self._take(told)

    @guarded(default=None)
    def _take(self, told: Mapping[str, Any]) -> None:
        if "declared" in told:
            jobs.declare(Declaration(**told["declared"]))
        elif "calendar" in told:
            _synchronised(told)
        elif "outcome" in told:
            self._ended(told)
        elif "began" in told:
            self._began(told)
        else:
            _count(told)

    def _began(self, told: Mapping[str, Any]) -> None:
        work = jobs.began_elsewhere(run_of(told), told["began_at"], _context(told["span"]))
        if work is not None:
            self._at_work[tuple(told["span"])] = work

    def _ended(self, told: Mapping[str, Any]) -> None:
        """A run of the horse is over; its span is the horse's."""
        course = Course(
            told["began_at"],
            told["seconds"],
            told["outcome"],
            told["error_type"],
            told["items"],
            told["backlog"],
            told["recovery_point"],
        )
        work = self._at_work.pop(tuple(told["span"]), None)
        if work is not None:
            jobs.ended_elsewhere(work, course)
        else:
            jobs.took_place(run_of(told), course, _context(told["span"]))


def _read(pipe: int) -> bytes:
    """What waits in a pipe."""
    text = b""
    try:
        while len(text) < _MOST_READ and (more := os.read(pipe, _MOST_READ)):
            text += more
    except BlockingIOError:  # that was all for now
        return text
    return text


def _told(lines: list[bytes]) -> Iterator[Mapping[str, Any]]:
    return (told for line in lines if (told := _line(line)) is not None)


@guarded(default=None)
def _line(line: bytes) -> Mapping[str, Any]:
    """A line; one that is broken is counted, and the others stay."""
    told = json.loads(line)
    if not isinstance(told, dict):
        raise TypeError(f"{type(told).__name__} is no line of a horse")
    return told


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


def _synchronised(told: Mapping[str, Any]) -> None:
    """Record a synchronisation of the horse, or that it began; where nobody here records any, nothing."""
    recorder = calendars.global_recorder()
    if recorder is None:
        return
    key = Key(*told["calendar"]) if told["calendar"] is not None else None
    if "sync" not in told:
        if key is not None:
            recorder.attempted(key)
        return
    sync = Synchronisation(**{**told["sync"], "items": Items(**told["sync"]["items"])})
    recorder.concluded(key, sync, told["seconds"], NonRecordingSpan(_context(told["span"])))


def _lose(work: Work) -> None:
    """Tell of a run whose horse died: a span of its own, in place of the horse's, which never came."""
    seconds = max(0.0, time.time() - work.started_at)
    failed = semconv.SAAS_JOB_OUTCOME_FAILURE
    jobs.lost_elsewhere(work, Course(work.started_at, seconds, failed, "WorkHorseTerminated"))


def run_of(told: Mapping[str, Any]) -> Run:
    """The run that is told of."""
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
