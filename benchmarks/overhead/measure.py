"""Rounds of load, the variants of a case next to each other, and what each costs.

A server's cost is its CPU time, of all its threads, from before the load until everything it
recorded has arrived at the Collector; so the export threads count, and waiting does not.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .servers import EXPORTING, HERE, VARIANTS, Application, Ports, Server, accepted

CONNECTIONS = 4
_QUIET_SECONDS = 0.8
_POLL_SECONDS = 0.1
_DRAIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request.

    ``goal`` is the ratio the project wants to keep below; None where the two do not record the same.
    """

    name: str
    application: Application
    path: str
    goal: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One load of one server."""

    requests: int
    failed: int
    cpu_us: float
    """CPU time of the server, microseconds per request."""
    p50_us: float
    p99_us: float
    spans: float
    """Spans per request that the Collector accepted."""
    log_records: float
    """Log records per request that the Collector accepted."""


Round = Mapping[str, Turn]
"""A turn of each variant."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and their extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, by its own clock (``clock_getcpuclockid`` of Linux)."""
    return time.clock_gettime(~pid << 3 | 2)


def cost(turn: Turn) -> float:
    """CPU time of a request, microseconds."""
    return turn.cpu_us


def added(rounds: Sequence[Round], variant: str) -> Spread:
    """Microseconds that a variant adds to a request: to the median of the bare one."""
    bare = each(rounds, "bare", cost).median
    return Spread.of(turns[variant].cpu_us - bare for turns in rounds)


def ratio(rounds: Sequence[Round]) -> Spread:
    """What the shim adds, to what the official packages add: of the medians, and round by round."""
    bare = each(rounds, "bare", cost).median
    spread = Spread.of(
        (turns["shim"].cpu_us - bare) / (turns["official"].cpu_us - bare) for turns in rounds
    )
    of_medians = added(rounds, "shim").median / added(rounds, "official").median
    return replace(spread, median=of_medians)


def each(rounds: Iterable[Round], variant: str, value: Callable[[Turn], float]) -> Spread:
    """The spread of one value of a variant."""
    return Spread.of(value(turns[variant]) for turns in rounds)


def play(case: Case, servers: Mapping[str, Server], ports: Ports, seconds: float, at: int) -> Round:
    """One round; the order of the variants changes from round to round."""
    shift = at % len(VARIANTS)
    order = VARIANTS[shift:] + VARIANTS[:shift]
    if at % 2:
        order = order[::-1]
    return {variant: turn(case, servers[variant], ports, seconds) for variant in order}


def turn(case: Case, server: Server, ports: Ports, seconds: float) -> Turn:
    """Load one server and wait until its telemetry has arrived."""
    pid = server.running.process.pid
    counts = accepted(ports)
    spent = cpu_seconds(pid)
    answer = load(server.port, case.path, seconds)
    arrived = drained(ports) if server.variant in EXPORTING else counts
    spent = cpu_seconds(pid) - spent
    requests = answer["requests"]
    return Turn(
        requests=int(requests),
        failed=int(answer["failed"]),
        cpu_us=spent * 1e6 / requests,
        p50_us=answer["p50_us"],
        p99_us=answer["p99_us"],
        spans=_per_request(counts, arrived, server.variant, "spans", requests),
        log_records=_per_request(counts, arrived, server.variant, "log_records", requests),
    )


def _per_request(
    before: Counter[tuple[str, str]],
    after: Counter[tuple[str, str]],
    variant: str,
    signal: str,
    requests: float,
) -> float:
    return (after[variant, signal] - before[variant, signal]) / requests


def load(port: int, path: str, seconds: float) -> dict[str, float]:
    """Load a server from a process of its own; see ``load.py``."""
    argv = [sys.executable, str(HERE / "load.py"), str(port), path, str(CONNECTIONS), str(seconds)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def drained(ports: Ports) -> Counter[tuple[str, str]]:
    """What the Collector accepted, once that no longer changes."""
    give_up = time.monotonic() + _DRAIN_SECONDS
    counts, since = accepted(ports), time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS and time.monotonic() < give_up:
        time.sleep(_POLL_SECONDS)
        now = accepted(ports)
        if now != counts:
            counts, since = now, time.monotonic()
    return counts
