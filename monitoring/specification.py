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
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Journey:
    """Routes that serve one purpose, and their p95 in seconds."""

    id: str
    routes: str
    threshold: float
    rationale: str


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; times in seconds, already divided by the speed."""

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
    no_request: str = ""


@dataclass(frozen=True, slots=True)
class Specification:
    """All of alerts.yaml."""

    interval: float
    links: Mapping[str, str]
    journeys: tuple[Journey, ...]
    stream_threshold: float
    alerts: Mapping[str, Alert] = field(default_factory=dict)


def seconds(text: str) -> float:
    """A duration as Prometheus writes it, of one unit. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text}")
    return int(match[1]) * _SECONDS[match[2]]


def load(speed: float = 1.0, source: Path = SOURCE) -> Specification:
    """Read the specification, every duration divided by `speed`."""
    given = yaml.safe_load(source.read_text())
    alerts = tuple(_alert(item, speed) for item in given["alerts"])
    return Specification(
        interval=seconds(given["defaults"]["interval"]) / speed,
        links=given["links"],
        journeys=tuple(Journey(**item) for item in given["journeys"]),
        stream_threshold=float(given["streams"]["threshold"]),
        alerts={alert.id: alert for alert in alerts},
    )


def _alert(item: Mapping[str, Any], speed: float) -> Alert:
    plain = {name: value for name, value in item.items() if name not in ("for", "window")}
    return Alert(
        **plain,
        window=seconds(item["window"]) / speed,
        lasting=seconds(item["for"]) / speed,
    )
