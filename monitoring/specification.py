"""alerts.yaml as nouns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).resolve().parent / "alerts.yaml"
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_DEFAULTS = ("interval", "export", "heard")
_HEARTBEATS = ("interval", "live", "remembered", "forgotten")
_DURATIONS = ("window", "grace", "limit")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Journey:
    """Routes that serve one purpose, and their p95 in seconds."""

    id: str
    routes: str
    threshold: float
    rationale: str


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """How the gauges that jobs and calendars leave behind are read, in seconds.

    `live`: a process that exported within this is alive. `remembered`: how long a dead one's last word
    counts; it must be longer than the longest period of a job, and Prometheus must keep as much.
    `forgotten`: after this a calendar that nobody tries counts no more, while others are synchronised.
    """

    interval: float
    live: float
    remembered: float
    forgotten: float


@dataclass(frozen=True, slots=True)
class Objective:
    """What an operation may take, or how old may be what it is judged by, in seconds; `grace` comes on top.

    `of` says by what: `recovery_point`, the data that it proved, or `success`, its last one.
    """

    operation: str
    limit: float
    grace: float
    rationale: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; times in seconds, already divided by the speed.

    `otherwise` is the severity of what is less urgent: jobs that are not critical, early signs.
    `grace` is how late something may be until it fires, `limit` how long something may take or wait.
    `reasons` and `values` are the texts of an alert that has several.
    """

    id: str
    alertname: str
    severity: str
    window: float
    lasting: float
    dashboard: str
    summary: str
    value: str
    description: str
    rationale: str
    trace_source: str
    threshold: float = 0.0
    at_least: int = 0
    operations: str = ""
    queues: str = ""
    no_request: str = ""
    no_trace: str = ""
    otherwise: str = ""
    grace: float = 0.0
    limit: float = 0.0
    reasons: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ()


@dataclass(frozen=True, slots=True)
class Specification:
    """All of alerts.yaml; `interval`, `export` and `heard` in seconds."""

    interval: float
    export: float
    heard: float
    links: Mapping[str, str]
    journeys: tuple[Journey, ...]
    stream_threshold: float
    heartbeats: Heartbeats
    alerts: Mapping[str, Alert] = field(default_factory=dict)


def seconds(text: str) -> float:
    """A duration as Prometheus writes it, of one unit. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text}")
    return int(match[1]) * _SECONDS[match[2]]


def load(
    speed: float = 1.0, days_speed: float | None = None, source: Path = SOURCE
) -> Specification:
    """Read the specification, every duration divided by `speed`, those of objectives by `days_speed`."""
    given = yaml.safe_load(source.read_text())
    alerts = tuple(_alert(item, speed, days_speed or speed) for item in given["alerts"])
    return Specification(
        **{name: seconds(given["defaults"][name]) / speed for name in _DEFAULTS},
        links=given["links"],
        journeys=tuple(Journey(**item) for item in given["journeys"]),
        stream_threshold=float(given["streams"]["threshold"]),
        heartbeats=Heartbeats(
            *(seconds(given["heartbeats"][name]) / speed for name in _HEARTBEATS)
        ),
        alerts={alert.id: alert for alert in alerts},
    )


def _alert(item: Mapping[str, Any], speed: float, days_speed: float) -> Alert:
    plain = {name: value for name, value in item.items() if name not in ("for", "objectives")}
    given = {name: seconds(item[name]) / speed for name in _DURATIONS if name in item}
    objectives = (_objective(each, days_speed) for each in item.get("objectives", ()))
    return Alert(
        **plain | given, lasting=seconds(item["for"]) / speed, objectives=tuple(objectives)
    )


def _objective(item: Mapping[str, Any], speed: float) -> Objective:
    limit, grace = (seconds(item[name]) / speed for name in ("limit", "grace"))
    return Objective(item["operation"], limit, grace, item["rationale"], item.get("of", ""))
