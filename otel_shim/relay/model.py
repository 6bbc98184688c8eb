"""Nouns of the relay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What the relay is told; times in seconds.

    `budget` bounds all look-ups for one batch, `write_wait` how long it waits for the disk; both together
    leave a quarter of the two seconds for which an alert may be held to the rest. `pause` is the longest
    for which a backend that failed is left alone. `again_after` is when an alert that went on without
    a trace is looked for once more, while nobody waits: with `patience`.
    """

    alertmanagers: tuple[str, ...]
    prometheus: str | None
    traces: str | None
    traces_kind: str
    trace_link: str | None
    state: Path
    budget: float = 1.2
    write_wait: float = 0.3
    again_after: float = 4.0
    patience: float = 5.0
    pause: float = 15.0
    delivery_timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a rule says about where its traces are (its annotations `relay_*`).

    `above` is the least value, exclusive, of an exemplar that shows the fault; `window` is in seconds.
    `resource` is what the service that made the trace says of itself beside its name.
    `newest`: the last trace is meant, as of a job's last run, not a typical one.
    """

    exemplars: str | None = None
    above: float = float("-inf")
    window: float = 900.0
    service: str | None = None
    resource: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    min_seconds: float = 0.0
    newest: bool = False
    no_trace: str | None = None
    no_request: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Sighting:
    """A trace that shows what the alert is about, and its request; empty when there is none."""

    trace_id: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer for one alert: sightings, the best first, or why there are none.

    `may_be_found`: there are none yet; a backend was too slow, or has not got them yet.
    """

    sightings: tuple[Sighting, ...] = ()
    source: str = ""
    reason: str = ""
    may_be_found: bool = False


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was said about an alert, kept for its re-sends and its end; times in Unix seconds.

    `ends_at` is when it resolved or, while it fires, until when Prometheus said that it holds.
    """

    finding: Finding
    ends_at: float
    seen_at: float


class LookupFailed(Exception):
    """A backend did not answer, or not as its API says."""


class LookupRefused(LookupFailed):
    """A backend refused this question (4xx); others it may answer."""
