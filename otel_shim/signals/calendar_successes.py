"""When each calendar was last synchronised, in the memory of this process.

Several processes may take turns with a calendar: that this one has not tried it for hours says nothing.
So a calendar whose last attempt here was complete counts with the others of its group, of which the
latest success is told; one whose last attempt here was not is told by its own.
"""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from otel_shim import locks

_MOST = 10_000
"""Calendars that are remembered; beyond them, those not tried for longest are forgotten."""
_BUCKETS = 256
"""Groups of calendars; each has a series for each process."""
_FORGOTTEN_AFTER = 86_400.0
"""Seconds after which a calendar that nobody tries any more is no longer one that this process synchronises."""


class Key(NamedTuple):
    """A calendar of an organisation. Holds its address: never to be exported."""

    provider: str
    organisation: str | None
    address: str


class Group(NamedTuple):
    """Calendars that are told of together: of a provider, in a bucket."""

    provider: str
    bucket: int


def group(key: Key) -> Group:
    """The group of a calendar, the same in every process and on every host."""
    text = "\0".join((key.provider, key.organisation or "", key.address))
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=1).digest()
    return Group(key.provider, digest[0] % _BUCKETS)


class _Seen:
    __slots__ = ("began", "failed", "first", "group", "succeeded", "tried")

    def __init__(self, key: Key, now: float) -> None:
        self.group = group(key)
        self.first = self.tried = now
        self.began: float | None = None
        """Start of the earliest attempt that has not ended."""
        self.succeeded: float | None = None
        self.failed = False

    def doubtful(self) -> float | None:
        """Since when it may be out of date; None where its last attempt was complete."""
        if self.failed:
            return self.first if self.succeeded is None else self.succeeded
        return self.began


class Successes:
    """The last complete synchronisation of each calendar. Times are seconds since 1970."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()
        self._told: set[Group] = set()
        self._inherited: Mapping[Key, float] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def attempted(self, key: Key) -> None:
        """A synchronisation starts."""
        now = time.time()
        with self._lock:
            seen = self._seen.get(key)
            if seen is None:
                seen = self._seen[key] = _Seen(key, now)
            seen.tried = now
            if seen.began is None:
                seen.began = now
            self._seen.move_to_end(key)
            if len(self._seen) > _MOST:
                self._seen.popitem(last=False)

    def succeeded(self, key: Key) -> None:
        """A synchronisation was complete."""
        with self._lock:
            if (seen := self._seen.get(key)) is not None:
                seen.succeeded, seen.failed, seen.began = time.time(), False, None

    def failed(self, key: Key) -> None:
        """A synchronisation ended and was not complete."""
        with self._lock:
            if (seen := self._seen.get(key)) is not None:
                seen.failed, seen.began = True, None

    def delay(self, key: Key) -> float | None:
        """Seconds since the last complete one; None where this process, or that which it was forked from, knows of none."""
        seen = self._seen.get(key)
        last = seen.succeeded if seen is not None else None
        last = self._inherited.get(key) if last is None else last
        return max(0.0, time.time() - last) if last is not None else None

    def oldest(self) -> dict[Group, float]:
        """For each group the latest success, or what is earlier: the last success of a calendar that fails.

        Of a calendar that never succeeded here, the first attempt: it must age like any other, or one
        that fails from the start would never be noticed. An attempt that does not end ages from its start.
        A group that was told of and has no calendar any more is 0: a series of `/metrics` stays.
        """
        with self._lock:
            self._drop()
            found = dict.fromkeys(self._told, 0.0) | _told(self._seen.values())
            self._told.update(found)
        return found

    def _drop(self) -> None:
        """Forget what nobody tries any more."""
        gone = time.time() - _FORGOTTEN_AFTER
        while self._seen and next(iter(self._seen.values())).tried < gone:
            self._seen.popitem(last=False)

    def _forget(self) -> None:
        """In a forked process: what its parent synchronises is the parent's to report, and may be asked for."""
        self._lock = threading.Lock()
        seen = list(self._seen.items())
        own = {key: each.succeeded for key, each in seen if each.succeeded is not None}
        known = {**self._inherited, **own}
        self._inherited = dict(list(known.items())[-_MOST:])
        self._seen, self._told = OrderedDict(), set()


def _told(calendars: Iterable[_Seen]) -> dict[Group, float]:
    """What is told of groups that have calendars."""
    latest: dict[Group, float] = {}
    doubtful: dict[Group, float] = {}
    for seen in calendars:
        if seen.succeeded is not None:
            latest[seen.group] = max(seen.succeeded, latest.get(seen.group, 0.0))
        if (since := seen.doubtful()) is not None:
            doubtful[seen.group] = min(since, doubtful.get(seen.group, since))
    return latest | {each: min(at, latest.get(each, at)) for each, at in doubtful.items()}


_all: weakref.WeakSet[Successes] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each._forget()  # noqa: SLF001 - its own module


locks.in_children(_after_fork)
