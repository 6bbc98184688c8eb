"""Queues: what a reading says, which queues are read, and who is told of what goes through them.

    otel_shim.queue(name, read) ─▶ registered() ─▶ signals.queues reads them when metrics are collected
    enqueued, taken, finished   ─▶ the meter of the process

Depth and age are the broker's: every process that reads a queue sees the same, so rules take the largest.
Workers are those of the process that reads: rules add them up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from otel_shim import counters, sources
from otel_shim._guard import guarded, logger

MOST_NAMES = 100
"""Queues that a process tells apart; an application may make one for each customer."""
OTHER = "_other"
"""What the queues beyond are called."""
_LONGEST_NAME = 64


@dataclass(frozen=True)
class QueueReading:
    """What is in a queue at one moment; None where that is not known, and then nothing is reported.

    ``ready`` items wait for a worker, ``in_flight`` ones have one, ``delayed`` ones wait for their
    time, ``dead`` ones failed too often. ``oldest_age`` is how long the oldest ready item has waited,
    in seconds. ``workers`` is how many workers this process has for the queue, ``busy`` how many of
    them are at work.
    """

    ready: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    dead: int | None = None
    oldest_age: float | None = None
    busy: int | None = None
    workers: int | None = None


Read = Callable[[], QueueReading]


class Meter(Protocol):
    """What is told of items of queues."""

    def enqueued(self, queue: str, items: int) -> object:
        """Items were put into a queue."""

    def taken(self, queue: str, waited_seconds: float) -> object:
        """A worker took an item that waited this long."""

    def finished(self, queue: str, items: int) -> object:
        """Workers are done with items."""


_meter: Meter | None = None
_reads: dict[str, Read] = {}
_names: set[str] = set()
_silent = False


def use_meter(meter: Meter | None) -> Meter | None:
    """Set what is told of items, and return what was."""
    global _meter
    before, _meter = _meter, meter
    return before


def current_meter() -> Meter | None:
    """What is told of items now."""
    return _meter


@guarded(default=None)
def register(name: Any, read: Any) -> None:
    """See ``otel_shim.queue``."""
    if not callable(read):
        counters.add("queue_rejected")
        logger.error(
            "otel_shim.queue: read is no function but a %s; the queue is not read", type(read)
        )
    elif not _silent:
        _reads[label(name)] = read


def forget(name: Any) -> None:
    """Read a queue no more."""
    _reads.pop(label(name), None)


def registered() -> Mapping[str, Read]:
    """The queues that this process reads."""
    return dict(_reads)


def silence() -> None:
    """Read nothing in this process from now on: it does one worker's jobs, whose parent does the reading."""
    global _silent
    _silent = True
    _reads.clear()


@guarded(default=None)
def enqueued(name: Any, items: int = 1) -> None:
    """See ``otel_shim.enqueued``."""
    if _meter is not None and _is_count(items):
        _meter.enqueued(label(name), items)


@guarded(default=None)
def taken(name: Any, waited_seconds: float) -> None:
    """See ``otel_shim.taken``; a negative time is that of two clocks that differ, and counts as none."""
    seconds = float(waited_seconds)
    if not math.isfinite(seconds):
        counters.add("queue_rejected")
    elif _meter is not None:
        _meter.taken(label(name), max(0.0, seconds))


@guarded(default=None)
def finished(name: Any, items: int = 1) -> None:
    """See ``otel_shim.finished``."""
    if _meter is not None and _is_count(items):
        _meter.finished(label(name), items)


def label(name: Any) -> str:
    """A queue's name as a label: at most 64 characters, and of at most ``MOST_NAMES`` one of its own."""
    if type(name) is str and name in _names:  # hardly ever a new one
        return name
    text = (sources.canonical(name) or OTHER)[:_LONGEST_NAME]
    if text in _names:
        return text
    if text == OTHER or len(_names) >= MOST_NAMES:
        counters.add("queue_rejected")
        return OTHER
    _names.add(text)
    return text


def checked(reading: object) -> QueueReading:
    """A reading without what cannot be true; that is counted. Where nothing waits, the age is 0.

    TypeError where it is no reading at all.
    """
    if not isinstance(reading, QueueReading):
        raise TypeError(f"a queue's read gave {type(reading).__name__}, not QueueReading")
    wrong = {
        field.name: None
        for field in fields(reading)
        if (value := getattr(reading, field.name)) is not None and not _is_amount(value)
    }
    if wrong:
        counters.add("queue_rejected", len(wrong))
        reading = replace(reading, **wrong)
    return replace(reading, oldest_age=0.0) if _is_empty(reading) else reading


def _is_empty(reading: QueueReading) -> bool:
    return reading.ready == 0 and reading.oldest_age is None


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0


def _is_count(items: Any) -> bool:
    if isinstance(items, int) and 0 < items < 1 << 63:
        return True
    if items != 0:
        counters.add("queue_rejected")
    return False
