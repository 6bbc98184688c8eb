"""Synchronisations whose next step has not come: a feed fetched and not yet read, a page with more to follow.

Nobody is obliged to take the next step, so each is concluded without it after some time, at the end
of the process, or when there are too many or they hold too many bytes.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from otel_shim import locks
from otel_shim._guard import guarded

_T = TypeVar("_T")
SECONDS = 30.0
_MOST = 256
_MOST_BYTES = 32 << 20


@dataclass(frozen=True)
class _Entry(Generic[_T]):
    """One that waits, until a moment of ``time.monotonic``, and the bytes that it holds."""

    until: float
    value: _T
    size: int


class Unfinished(Generic[_T]):
    """What waits for its next step, by a key that the step will know."""

    def __init__(self, conclude: Callable[[_T], object], seconds: float = SECONDS) -> None:
        self._conclude = guarded(default=None)(conclude)
        self._seconds = seconds
        self._waiting: OrderedDict[Hashable, _Entry[_T]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        _all.add(self)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: Hashable, waiting: _T, size: int = 0) -> None:
        """Keep one, which holds so many bytes, until its next step.

        Another under the same key is concluded; the oldest are where all hold too much, at last this one.
        """
        with self._lock:
            gone = self._admit(key, _Entry(time.monotonic() + self._seconds, waiting, size))
            self._watch(self._seconds)
        for each in gone:
            self._conclude(each.value)

    def take(self, key: Hashable) -> _T | None:
        """The one that waits under a key, which from now on waits no more."""
        with self._lock:
            found = self._pop(key) if key in self._waiting else None
        return found.value if found is not None else None

    def _admit(self, key: Hashable, entry: _Entry[_T]) -> list[_Entry[_T]]:
        """Those that have to go for one that comes."""
        gone = [self._pop(key)] if key in self._waiting else []
        self._waiting[key] = entry
        self._bytes += entry.size
        while len(self._waiting) > _MOST or self._bytes > _MOST_BYTES:
            gone.append(self._pop(next(iter(self._waiting))))
        return gone

    def _pop(self, key: Hashable) -> _Entry[_T]:
        entry = self._waiting.pop(key)
        self._bytes -= entry.size
        return entry

    def finish(self) -> None:
        """Conclude all."""
        self._conclude_until(float("inf"))

    def _watch(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        now = time.monotonic()
        self._conclude_until(now)
        with self._lock:
            self._timer = None
            if self._waiting:
                first = next(iter(self._waiting.values())).until
                self._watch(max(0.05, first - now))

    def _conclude_until(self, moment: float) -> None:
        while True:
            with self._lock:
                first = next(iter(self._waiting), None)
                if first is None or self._waiting[first].until > moment:
                    return
                entry = self._pop(first)
            self._conclude(entry.value)

    def _forget(self) -> None:
        """In a forked process: what waits is the parent's, and so was the timer."""
        self._lock = threading.Lock()
        self._waiting = OrderedDict()
        self._bytes = 0
        self._timer = None


_all: weakref.WeakSet[Any] = weakref.WeakSet()


def _at_exit() -> None:
    for each in list(_all):
        each.finish()


def _after_fork() -> None:
    for each in list(_all):
        each._forget()  # noqa: SLF001 - its own module


locks.in_children(_after_fork)


def conclude_at_exit() -> None:
    """Conclude what waits when the process ends; called after the providers exist, so that it comes before their end."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
