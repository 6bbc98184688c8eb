"""Nouns of the relay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What the relay is told; times in seconds.

    `budget` bounds all look-ups for one batch, `pause` is how long a backend that failed is left alone.
    """

    alertmanagers: tuple[str, ...]
    prometheus: str | None
    traces: str | None
    traces_kind: str
    trace_link: str | None
    state: Path
    budget: float = 1.0
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
    """The answer for one alert: sightings, the best first, or why there are none."""

    sightings: tuple[Sighting, ...] = ()
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was said about an alert, kept for its re-sends and its end; times in Unix seconds."""

    finding: Finding
    seen_at: float
    resolved_at: float | None


class LookupFailed(Exception):
    """A backend did not answer, or not as its API says."""
