"""Questions to the running Prometheus."""

from __future__ import annotations

import time
from typing import Any

import httpx

from monitoring import alerting

_EXPORTED_SECONDS = 1.5


def query(url: str, expr: str) -> list[dict[str, Any]]:
    """The vector that an expression gives now."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expr}, timeout=10)
    result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
    return result


def over_time(url: str, expr: str, since: float, step: float = 5.0) -> list[dict[str, Any]]:
    """The series that an expression gave at any time since then (Unix seconds)."""
    asked = {"query": expr, "start": f"{since:.3f}", "end": f"{time.time():.3f}", "step": f"{step}"}
    answer = httpx.get(f"{url}/api/v1/query_range", params=asked, timeout=30)
    result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
    return result


def labels_seen(url: str, metric: str, since: float) -> set[str]:
    """The labels that any series of a metric had since then; empty where there is none."""
    asked = {"match[]": metric, "start": f"{since:.3f}", "end": f"{time.time():.3f}"}
    answer = httpx.get(f"{url}/api/v1/series", params=asked, timeout=10)
    return set[str]().union(*answer.raise_for_status().json()["data"])


def exemplars(url: str, expr: str, since: float) -> list[set[str]]:
    """The labels of each exemplar of the series that an expression reads."""
    asked = {"query": expr, "start": f"{since:.3f}", "end": f"{time.time():.3f}"}
    answer = httpx.get(f"{url}/api/v1/query_exemplars", params=asked, timeout=10)
    found = answer.raise_for_status().json()["data"]
    return [set(item["labels"]) for series in found for item in series["exemplars"]]


def label_values(url: str, metric: str, label: str) -> list[str]:
    """What Grafana asks for a variable `label_values(metric, label)`."""
    answer = httpx.get(f"{url}/api/v1/label/{label}/values", params={"match[]": metric}, timeout=10)
    values: list[str] = answer.raise_for_status().json()["data"]
    return values


def first_fired(url: str, alert_id: str, since: float) -> dict[str, float]:
    """When an alert began to fire since then, by operation, in Unix seconds."""
    chosen = f'alert_id="{alert_id}", alertstate="firing"'
    steps = f"timestamp(ALERTS{{{chosen}}})[{_seconds_since(since)}s:1s]"
    return _by_operation(query(url, f"min_over_time({steps})"))


def last_starts(url: str, at: float) -> dict[str, float]:
    """When each operation had last started, as far as was known a while after `at`, in Unix seconds."""
    known = f"last_over_time({alerting.JOB_START}[5m] @ {at + _EXPORTED_SECONDS:.3f})"
    return _by_operation(query(url, f"max by ({alerting.OPERATION}) ({known})"))


def _seconds_since(since: float) -> int:
    return max(1, int(time.time() - since))


def _by_operation(found: list[dict[str, Any]]) -> dict[str, float]:
    return {each["metric"][alerting.OPERATION]: float(each["value"][1]) for each in found}


def fired(url: str, seconds: float) -> list[dict[str, str]]:
    """The alerts that fired in the last seconds, by their labels; the heartbeat is none."""
    chosen = 'alertstate="firing", severity!="heartbeat"'
    expr = f"last_over_time(ALERTS{{{chosen}}}[{max(1, int(seconds))}s])"
    return [item["metric"] for item in query(url, expr)]
