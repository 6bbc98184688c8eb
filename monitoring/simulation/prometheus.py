"""Questions to the running Prometheus."""

from __future__ import annotations

from typing import Any

import httpx


def query(url: str, expr: str) -> list[dict[str, Any]]:
    """The vector that an expression gives now."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expr}, timeout=10)
    result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
    return result


def fired(url: str, seconds: float) -> list[dict[str, str]]:
    """The alerts that fired in the last seconds, by their labels; the heartbeat is none."""
    chosen = 'alertstate="firing", severity!="heartbeat"'
    expr = f"last_over_time(ALERTS{{{chosen}}}[{max(1, int(seconds))}s])"
    return [item["metric"] for item in query(url, expr)]
