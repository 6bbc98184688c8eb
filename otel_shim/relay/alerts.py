"""Alerts as Prometheus sends them: what is read from them, and what is added to their annotations.

An alert stays the JSON object that came (Alertmanager API v2, `postableAlert`), so that members this
module does not know pass through.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from otel_shim.relay.model import Finding, Question

Alert = dict[str, Any]

INSTRUCTIONS = "relay_"
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MOST = 3  # ids in one message
_HOLDS_SECONDS = 300.0  # an alert without an end: Alertmanager's `resolve_timeout`
_MOST_CHARACTERS = 300  # of a reason


@dataclass(frozen=True, slots=True)
class Incoming:
    """An alert that came, and what tells it from others; times in Unix seconds.

    `ends_at` is in the future while it fires: until then it holds if Prometheus is silent.
    """

    raw: Alert
    fingerprint: str
    starts_at: float
    ends_at: float
    resolved: bool


def incoming(raw: Any, now: float) -> Incoming:
    """An alert as read; what is left out is as Alertmanager takes it. Raises ValueError for what is none."""
    if not isinstance(raw, dict) or not isinstance(raw.get("labels"), dict):
        raise ValueError("an alert without labels")
    if not isinstance(raw.get("annotations") or {}, dict):
        raise ValueError("annotations that are no object")
    ends_at = instant(raw.get("endsAt"))
    ended = ends_at is not None and 0 < ends_at <= now
    ends = ends_at if ends_at is not None and ends_at > 0 else now + _HOLDS_SECONDS
    starts_at = instant(raw.get("startsAt"))
    starts = starts_at if starts_at is not None and starts_at > 0 else min(now, ends)
    return Incoming(raw, fingerprint(raw), starts, ends, ended)


def fingerprint(alert: Alert) -> str:
    """The alert's identity: its labels, as for Alertmanager. The text is ours, not Alertmanager's."""
    labels = sorted((str(name), str(value)) for name, value in alert["labels"].items())
    return hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:32]


def instant(text: Any) -> float | None:
    """An RFC 3339 time in Unix seconds; None when it is none."""
    match = _INSTANT.fullmatch(str(text))
    if match is None:
        return None
    second, fraction, zone = match.groups()
    whole = datetime.fromisoformat(second + ("+00:00" if zone == "Z" else zone))
    return whole.astimezone(timezone.utc).timestamp() + float(fraction or 0)


def question(alert: Alert) -> Question:
    """What the rule says about its traces. Raises ValueError when that cannot be read."""
    said = {
        name.removeprefix(INSTRUCTIONS): str(value)
        for name, value in (alert.get("annotations") or {}).items()
        if name.startswith(INSTRUCTIONS)
    }
    return Question(
        exemplars=said.get("exemplars"),
        above=float(said.get("above", "-inf")),
        window=float(said.get("window", "900")),
        service=said.get("service"),
        resource=_resource(said.get("resource", "{}")),
        tags=_tags(said.get("tags", "{}")),
        min_seconds=float(said.get("min_seconds", "0")),
        newest=said.get("order") == "newest",
        no_trace=said.get("no_trace"),
        no_request=said.get("no_request"),
    )


def _tags(text: str) -> Mapping[str, str]:
    tags = json.loads(text)
    if not isinstance(tags, dict):
        raise ValueError("relay_tags or relay_resource is not a JSON object")
    return {str(name): str(value) for name, value in tags.items()}


def _resource(text: str) -> Mapping[str, str]:
    """What has a value: nothing can be searched for that says nothing of its environment."""
    return {name: value for name, value in _tags(text).items() if value}


def annotated(alert: Alert, finding: Finding, link: str | None) -> Alert:
    """The alert with its ids, or with the reason why it has none; instructions are taken out.

    `link` is the address of a trace with `{trace_id}` in it.
    """
    given = alert.get("annotations") or {}
    kept = {k: v for k, v in given.items() if not k.startswith(INSTRUCTIONS)}
    return alert | {"annotations": kept | _ids(finding, given, link)}


def _ids(finding: Finding, given: Mapping[str, Any], link: str | None) -> dict[str, str]:
    if not finding.sightings:
        reason = f"none: {finding.reason}"[:_MOST_CHARACTERS]
        return {"trace_id": reason, "request_id": reason}
    best = finding.sightings[0]
    no_request = given.get(f"{INSTRUCTIONS}no_request", "the trace's source names no request")
    ids = {
        "trace_id": best.trace_id,
        "request_id": best.request_id or f"none: {no_request}",
        "trace_source": finding.source,
    }
    if link is not None:
        ids["trace_url"] = link.replace("{trace_id}", best.trace_id)
    return ids | _others(finding)


def _others(finding: Finding) -> dict[str, str]:
    others = finding.sightings[1:_MOST]
    requests = [item.request_id for item in others if item.request_id]
    more = {"more_trace_ids": [item.trace_id for item in others], "more_request_ids": requests}
    return {name: ", ".join(values) for name, values in more.items() if values}


def failure(error: Exception) -> Finding:
    """What is said where the relay itself failed."""
    return Finding(reason=f"the relay failed: {type(error).__name__}")
