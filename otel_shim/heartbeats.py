"""What this process knows of its jobs: what was declared, and when each last ran. Pure but for the lock.

Read at collection time by ``signals.jobs``; whoever judges a job does so from outside, by these times,
because a process that is dead says nothing. A forked child keeps the declarations and starts its own times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from otel_shim import counters, locks
from otel_shim.model import Scalar

MOST = 2000
"""Jobs of one process that are watched: OpenTelemetry's default limit of series for one metric."""
FUNCTION = "function"
"""The source of what a decorator declares; it goes over what a scheduler says of the same job."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared about a job: ``period`` and ``max_runtime`` in seconds, ``at`` since 1970.

    ``period`` is the longest time between two runs by the schedule; 0 of one that was withdrawn. ``at`` is
    since when that is so. ``references`` maps attributes of ``saas.gdpr`` to their values.
    """

    name: str
    schedule: str | None = None
    period: float | None = None
    max_runtime: float | None = None
    critical: bool = False
    references: Mapping[str, Scalar] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


@dataclass(slots=True)
class Heartbeat:
    """When a job last did what; times in seconds since 1970, absent where it has not yet.

    ``at_work`` are the starts of the runs that have not ended. ``recovery_point`` is the time of the data
    that the last success proved to be restorable.
    """

    at_work: list[float] = field(default_factory=list)
    last_start: float | None = None
    last_success: float | None = None
    last_duration: float | None = None
    backlog: int | None = None
    recovery_point: float | None = None

    @property
    def active(self) -> int:
        """How many runs are at work."""
        return len(self.at_work)

    @property
    def active_since(self) -> float | None:
        """Start of the run that is longest at work."""
        return min(self.at_work, default=None)


class Heartbeats:
    """All jobs of one process; thread-safe, and usable in a forked child."""

    def __init__(self) -> None:
        self._declared: dict[str, dict[str, Declaration]] = {}
        self._together: dict[str, Declaration] = {}
        self._withdrawn: dict[str, Declaration] = {}
        self._silent = False
        self._hear: Callable[[], object] | None = None
        self.forget()
        locks.in_children(self.forget)

    def forget(self) -> None:
        """Start the times anew: those before a fork are the parent's to tell."""
        self._lock = threading.Lock()
        self._hear = None
        self._beats: dict[str, Heartbeat] = {}

    def silence(self) -> None:
        """Tell nobody of what is here from now on: another process does, which is told by this one."""
        self._silent = True

    def hear_first(self, hear: Callable[[], object] | None) -> None:
        """Take in what another process has told before anybody looks."""
        self._hear = hear

    def declare(self, declaration: Declaration, source: str = FUNCTION) -> None:
        """Note a declaration; one of the same job from the same source takes the place, not its time."""
        with self._lock:
            if declaration.name in self._declared or len(self._declared) < MOST:
                sources = self._declared.setdefault(declaration.name, {})
                before = sources.get(source, declaration)
                sources[source] = replace(declaration, at=min(before.at, declaration.at))
                self._settle(declaration.name)
                return
        counters.add("jobs_not_watched")

    def withdraw(self, name: str, source: str) -> None:
        """Forget a declaration, of a job that a scheduler no longer has or does not run for now."""
        with self._lock:
            if self._declared.get(name, {}).pop(source, None) is not None:
                self._settle(name)

    def _settle(self, name: str) -> None:
        """Put together what is declared of a job, or note that it has no schedule any more.

        As long as somebody declares one, the time stays at which the first did.
        """
        before, sources = self._together.get(name), self._declared[name]
        after = _together(sources) if sources else None
        scheduled = before is not None and before.period is not None
        if after is not None and after.period is not None:
            self._withdrawn.pop(name, None)
            after = replace(after, at=before.at) if before and scheduled else after
        elif before is not None and scheduled:
            ended = replace(after or before, schedule=None, period=0.0, at=time.time())
            self._withdrawn[name] = ended
        if after is not None:  # read without the lock: at no time is it gone
            self._together[name] = after
        else:
            del self._declared[name]
            self._together.pop(name, None)
        self._make_room()

    def _make_room(self) -> None:
        """Forget the oldest withdrawals where there are too many: names may be made of tenants."""
        while len(self._withdrawn) + len(self._together) > MOST and self._withdrawn:
            del self._withdrawn[next(iter(self._withdrawn))]

    def declared(self, name: str) -> Declaration | None:
        """What is declared about a job: the decorator's; what it leaves open is the schedulers' to say."""
        return self._together.get(name)

    def declarations(self) -> list[Declaration]:
        """What is declared about each job."""
        with self._lock:
            return list(self._together.values())

    def told(self) -> list[Declaration]:
        """What outsiders are told of each job: what is declared, and that a schedule was withdrawn.

        They remember what dead processes said, so that of a job that is paused, removed or over its
        process must say so, for as long as it lives.
        """
        with self._lock:
            return list((self._together | self._withdrawn).values())

    def started(self, name: str, at: float) -> bool:
        """Note a start; whether an earlier run of the job is still at work here."""
        with self._lock:
            beat = self._beats.get(name)
            if beat is None:
                if len(self._beats) >= MOST:
                    counters.add("jobs_not_watched")
                    return False
                beat = self._beats[name] = Heartbeat()
            beat.at_work.append(at)
            beat.last_start = at
            return beat.active > 1

    def ended(
        self,
        name: str,
        started_at: float,
        seconds: float,
        *,
        success: bool,
        backlog: int | None = None,
        recovery_point: float | None = None,
    ) -> None:
        """Note the end of the run that started then; only a success moves more than the backlog."""
        with self._lock:
            beat = self._beats.get(name)
            if beat is None:  # not watched, or started before a fork
                return
            if started_at in beat.at_work:
                beat.at_work.remove(started_at)
            if success:
                beat.last_success, beat.last_duration = started_at + seconds, seconds
                beat.recovery_point = recovery_point
            if backlog is not None:
                beat.backlog = backlog

    def observed_declarations(self) -> list[Declaration]:
        """What metrics tell of each job: what is declared or withdrawn, as it is now."""
        return self.told() if self._speaks() else []

    def observed_beats(self) -> dict[str, Heartbeat]:
        """What metrics tell of each job: when it last did what, as it is now."""
        return self.beats() if self._speaks() else {}

    def _speaks(self) -> bool:
        """Whether metrics of this process tell of its jobs; what another one has told is taken in first."""
        if self._silent:
            return False
        if (hear := self._hear) is not None:
            hear()
        return True

    def beats(self) -> dict[str, Heartbeat]:
        """When each job last did what."""
        with self._lock:
            return {
                name: replace(beat, at_work=[*beat.at_work]) for name, beat in self._beats.items()
            }


def _together(sources: Mapping[str, Declaration]) -> Declaration:
    """One declaration of several sources; of several schedules the one that runs most often."""
    own = sources.get(FUNCTION)
    scheduled = [each for each in sources.values() if each.period is not None]
    if own is not None and (own.period is not None or not scheduled):
        return own
    if not scheduled:
        return next(iter(sources.values()))
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
        often.at,
    )


heartbeats = Heartbeats()
"""The jobs of this process."""
