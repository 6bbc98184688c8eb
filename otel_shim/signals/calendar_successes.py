"""When each calendar was last synchronised, in the memory of this process."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from typing import NamedTuple

_MOST = 10_000
"""Calendars that are remembered; beyond them, those not tried for longest are forgotten."""
_FORGOTTEN_AFTER = 86_400.0
"""Seconds after which a calendar that nobody tries any more is no longer one that this process synchronises."""


class Key(NamedTuple):
    """A calendar of an organisation. Holds its address: never to be exported."""

    provider: str
    organisation: str | None
    address: str


class _Seen:
    __slots__ = ("first", "succeeded", "tried")

    def __init__(self, now: float) -> None:
        self.first = self.tried = now
        self.succeeded: float | None = None


class Successes:
    """The last complete synchronisation of each calendar. Times are seconds since 1970."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()
        self._lock = threading.Lock()
        _all.add(self)

    def attempted(self, key: Key) -> None:
        """A synchronisation starts."""
        now = time.time()
        with self._lock:
            seen = self._seen.setdefault(key, _Seen(now))
            seen.tried = now
            self._seen.move_to_end(key)
            if len(self._seen) > _MOST:
                self._seen.popitem(last=False)

    def succeeded(self, key: Key) -> None:
        """A synchronisation was complete."""
        with self._lock:
            if (seen := self._seen.get(key)) is not None:
                seen.succeeded = time.time()

    def delay(self, key: Key) -> float | None:
        """Seconds since the last complete one; None where there was none in this process."""
        seen = self._seen.get(key)
        if seen is None or seen.succeeded is None:
            return None
        return max(0.0, time.time() - seen.succeeded)

    def oldest(self) -> dict[str, float]:
        """For each provider, the earliest last success.

        Of a calendar that never succeeded here, the first attempt: it must age like any other, or one
        that fails from the start would never be noticed.
        """
        gone = time.time() - _FORGOTTEN_AFTER
        found: dict[str, float] = {}
        with self._lock:
            while self._seen and next(iter(self._seen.values())).tried < gone:
                self._seen.popitem(last=False)
            for key, seen in self._seen.items():
                at = seen.first if seen.succeeded is None else seen.succeeded
                found[key.provider] = min(at, found.get(key.provider, at))
        return found

    def _forget(self) -> None:
        """In a forked process: what its parent synchronises is the parent's to report."""
        self._lock = threading.Lock()
        self._seen = OrderedDict()


_all: weakref.WeakSet[Successes] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each._forget()  # noqa: SLF001 - its own module


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
