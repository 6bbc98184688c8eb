"""What a work horse of RQ tells its worker while it runs a job: a line of JSON each, through a pipe.

declared    a job that the horse has imported, and its worker does not know
began       a run has begun: the job's own, and declared ones inside of it
outcome     a run has ended
calendar    a synchronisation has begun, or ended
enqueued, finished, taken, left_out   what the job did with queues, at its end
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from opentelemetry.trace import Span, SpanContext

from otel_shim._guard import guarded
from otel_shim.calendars import Synchronisation
from otel_shim.capture import deliveries
from otel_shim.heartbeats import Declaration, heartbeats
from otel_shim.jobs import Ended, Work
from otel_shim.signals.calendar_successes import Key

_LONGEST_LINE = 4096
"""Bytes; ``PIPE_BUF`` of Linux: what is written at once is there whole, or not at all."""
_LONGEST_NAME = 256
_HOLDS = 1 << 14
"""Bytes that a pipe holds at least, where that cannot be asked."""
_MOST_WAITS = 500
_AT_ONCE = 12
"""Queues in a line: with names of 64 characters, of four bytes each, it is not too long."""
_P = TypeVar("_P")


class ToWorker:
    """What a horse's runs and synchronisations are told to, in place of metrics.

    The worker reads when it collects metrics and when the horse has ended; until then all of it must fit
    into the pipe. What is not the job's own gets half of it: Linux keeps a line on one page, and leaves
    free what the next one does not fit into, at most half of all. The job's own end has its place in any case.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._holds = _holds(pipe)
        self._own: Work | None = None
        self._inner: set[Work] = set()
        self._known = {each.name: each for each in heartbeats.declarations()}
        self._left_out = 0

    @guarded(default=None)
    def started(self, work: Work) -> None:
        """Tell that a run inside of the job's own has begun, where it is declared: it may be judged by its time."""
        if self._own is not None and work.declaration is not None:
            self._declare()
            if self._write({**about(work), "began": True}, self._holds // 2):
                self._inner.add(work)

    def unstarted(self, name: str, outcome: str, count: int) -> None:
        """A horse starts what it has; schedulers live elsewhere."""

    @guarded(default=None)
    def began(self, work: Work) -> None:
        """Tell which run is the job's own, so that the worker can tell of it when the horse cannot."""
        self._declare()  # first: the worker judges the run by it
        self._own = work
        self._write({**about(work), "began": True}, self._holds)

    def _declare(self) -> None:
        """Tell what is declared in what the horse has imported; what there is no room for, the next horse tells."""
        for each in heartbeats.declarations():
            if self._known.get(each.name) != each:
                self._known[each.name] = each
                self._write({"declared": _plain(each)}, self._holds // 2, 0)

    @guarded(default=None)
    def ended(self, ended: Ended) -> None:
        """Tell how a run ended."""
        kind = ended.error_type
        told = {
            **about(ended.work),
            "outcome": ended.outcome,
            "seconds": ended.seconds,
            "error_type": kind[:_LONGEST_NAME] if kind is not None else None,
            "items": ended.work.items,
            "backlog": ended.work.backlog,
            "recovery_point": ended.work.recovery_point,
        }
        self._write(told, self._room_for_the_end_of(ended.work))
        self._inner.discard(ended.work)

    def _room_for_the_end_of(self, work: Work) -> int:
        """A run that began has room kept for its end: without it the worker takes the run for lost."""
        if work is self._own:
            return self._holds
        return self._holds * 3 // 4 if work in self._inner else self._holds // 2

    @guarded(default=None)
    def attempted(self, key: Key) -> None:
        """Tell that a synchronisation has begun. Its address stays on this host, as in the memory of a process."""
        self._write({"calendar": key}, self._holds // 2)

    @guarded(default=None)
    def concluded(self, key: Key | None, sync: Synchronisation, seconds: float, span: Span) -> None:
        """Tell how a synchronisation has ended."""
        told = {
            "calendar": key,
            "sync": asdict(sync),
            "seconds": seconds,
            "span": _ids(span.get_span_context()),
        }
        self._write(told, self._holds // 2)

    @guarded(default=None)
    def over(self, items: Items) -> None:
        """Tell what the job did with queues, waits last, and how much of all is not told."""
        self._declare()
        for told in items.counted():
            self._write(told, self._holds)
        for waits in items.waits():
            self._write({"taken": waits}, self._holds * 3 // 4, len(waits))
        if self._left_out:
            self._write({"left_out": self._left_out}, self._holds)

    def _write(self, told: Mapping[str, Any], room: int, count: int = 1) -> bool:
        """Write a line where the pipe then holds no more than ``room`` bytes; else count it as left out."""
        line = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if len(line) <= _LONGEST_LINE and _written(self._pipe) + len(line) <= room:
            with contextlib.suppress(BlockingIOError):
                os.write(self._pipe, line)
                return True
        self._left_out += count
        return False


def _plain(declaration: Declaration) -> dict[str, Any]:
    return {**asdict(declaration), "references": dict(declaration.references)}


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


class Items:
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


def about(work: Work) -> dict[str, Any]:
    """Which run it is; enough to make it again in the worker."""
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
