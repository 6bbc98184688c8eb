"""What this process knows of its jobs: what was declared, and when each last ran. Pure but for the lock.

Read at collection time by ``signals.jobs``; whoever judges a job does so from outside, by these times,
because a process that is dead says nothing. A forked child keeps the declarations and starts its own times.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from otel_shim import counters
from otel_shim.model import Scalar

MOST = 2000
"""Jobs of one process that are watched: OpenTelemetry's default limit of series for one metric."""
FUNCTION = "function"
"""The source of what a decorator declares; it goes over what a scheduler says of the same job."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared about a job: ``period`` and ``max_runtime`` in seconds, ``at`` since 1970.

    ``period`` is the longest time between two runs by the schedule. ``references`` maps attributes of
    ``saas.gdpr`` to their values.
    """

    name: str
    schedule: str | None = None
    period: float | None = None
    max_runtime: float | None = None
    critical: bool = False
    references: Mapping[str, Scalar] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When a job last did what; times in seconds since 1970, absent where it has not yet."""

    active: int = 0
    last_start: float | None = None
    last_success: float | None = None
    last_duration: float | None = None
    backlog: int | None = None


class Heartbeats:
    """All jobs of one process; thread-safe, and usable in a forked child."""

    def __init__(self) -> None:
        self._declared: dict[str, dict[str, Declaration]] = {}
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Start the times anew: those before a fork are the parent's to tell."""
        self._lock = threading.Lock()
        self._beats: dict[str, Heartbeat] = {}

    def declare(self, declaration: Declaration, source: str = FUNCTION) -> None:
        """Note a declaration; one of the same job from the same source takes its place."""
        with self._lock:
            if declaration.name in self._declared or len(self._declared) < MOST:
                self._declared.setdefault(declaration.name, {})[source] = declaration
                return
        counters.add("jobs_not_watched")

    def withdraw(self, name: str, source: str) -> None:
        """Forget a declaration, of a job that a scheduler no longer has."""
        with self._lock:
            sources = self._declared.get(name, {})
            sources.pop(source, None)
            if not sources:
                self._declared.pop(name, None)

    def declared(self, name: str) -> Declaration | None:
        """What is declared about a job: the decorator's; what it leaves open is the schedulers' to say."""
        with self._lock:
            sources = list(self._declared.get(name, {}).items())
        return _together(sources) if sources else None

    def declarations(self) -> list[Declaration]:
        """What is declared about each job."""
        with self._lock:
            names = list(self._declared)
        found = (self.declared(name) for name in names)
        return [declaration for declaration in found if declaration is not None]

    def started(self, name: str, at: float) -> bool:
        """Note a start; whether an earlier run of the job is still at work here."""
        with self._lock:
            beat = self._beats.get(name)
            if beat is None and len(self._beats) >= MOST:
                counters.add("jobs_not_watched")
                return False
            before = beat or Heartbeat()
            self._beats[name] = _changed(before, active=before.active + 1, last_start=at)
            return before.active > 0

    def ended(self, name: str, at: float, seconds: float, success: bool) -> None:
        """Note the end of a run; only a success moves ``last_success`` and ``last_duration``."""
        with self._lock:
            before = self._beats.get(name)
            if before is None:  # not watched, or started before a fork
                return
            beat = _changed(before, active=max(0, before.active - 1))
            if success:
                beat = _changed(beat, last_success=at, last_duration=seconds)
            self._beats[name] = beat

    def waiting(self, name: str, backlog: int) -> None:
        """Note how many items wait for a job."""
        with self._lock:
            if (before := self._beats.get(name)) is not None:
                self._beats[name] = _changed(before, backlog=backlog)

    def beats(self) -> dict[str, Heartbeat]:
        """When each job last did what."""
        with self._lock:
            return dict(self._beats)


def _changed(
    beat: Heartbeat,
    *,
    active: int | None = None,
    last_start: float | None = None,
    last_success: float | None = None,
    last_duration: float | None = None,
    backlog: int | None = None,
) -> Heartbeat:
    """A heartbeat with what is given put over it; ``dataclasses.replace`` takes three times as long."""
    return Heartbeat(
        beat.active if active is None else active,
        beat.last_start if last_start is None else last_start,
        beat.last_success if last_success is None else last_success,
        beat.last_duration if last_duration is None else last_duration,
        beat.backlog if backlog is None else backlog,
    )


def _together(sources: list[tuple[str, Declaration]]) -> Declaration:
    """One declaration of several sources; of several schedules the one that runs most often."""
    own = next((each for source, each in sources if source == FUNCTION), None)
    scheduled = [each for _, each in sources if each.period is not None]
    if own is not None and (own.period is not None or not scheduled):
        return own
    if not scheduled:
        return sources[0][1]
    often = min(scheduled, key=lambda each: each.period or 0.0)
    if own is None:
        return often
    return Declaration(
        own.name,
        often.schedule,
        often.period,
        own.max_runtime,
        own.critical,
        own.references,
        own.at,
    )


heartbeats = Heartbeats()
"""The jobs of this process."""
