"""Alerts without a fault: false ones, and those that are true because the machine is busy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitoring.specification import Specification

LATENCY = "api.latency"


def false_alarms(
    spec: Specification, fired: Sequence[Mapping[str, str]], p95s: Mapping[str, float]
) -> list[str]:
    """What fired, by its labels, though nobody was slow: `p95s` is the worst that the senders saw, by path, in seconds.

    On an overloaded machine requests are slow indeed; an alert that says so is right. Any other is not.
    """
    return [named(alert) for alert in fired if not _true(spec, alert, p95s)]


def named(alert: Mapping[str, str]) -> str:
    """For people."""
    return f"{alert['alert_id']} {alert['endpoint']}"


def _true(spec: Specification, alert: Mapping[str, str], p95s: Mapping[str, float]) -> bool:
    thresholds = {journey.id: journey.threshold for journey in spec.journeys}
    thresholds["stream"] = spec.stream_threshold
    seen = {f"GET {path.replace('{plan}', '{plan_id}')}": p95 for path, p95 in p95s.items()}
    return (
        alert["alert_id"] == LATENCY
        and seen.get(alert["endpoint"], 0.0) > thresholds[alert["journey"]]
    )
