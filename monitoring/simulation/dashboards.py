"""Every query of every dashboard, run against the Prometheus of the simulation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monitoring.simulation import prometheus

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"
_INTERVALS = re.compile(r"\$__(rate_interval|interval|range)")
_VARIABLE = re.compile(r"\$\{?\w+(?::\w+)?\}?")
# What is there only while an alert fires, or in the course of an incident.
MAY_BE_EMPTY = ("ALERTS{",)


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and expression of each Prometheus query, rows included."""
    for panel in board.get("panels", ()):
        yield from queries(panel)
        for target in panel.get("targets", ()):
            if "expr" in target:
                yield panel["title"], target["expr"]


def concrete(expr: str) -> str:
    """The expression with Grafana's variables at their widest: everything, over five minutes."""
    return _VARIABLE.sub(".*", _INTERVALS.sub("5m", expr))


def empty_panels(url: str) -> tuple[int, list[str]]:
    """How many queries were run, and which gave nothing."""
    boards = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    found = [(board["title"], *item) for board in boards for item in queries(board)]
    empty = [
        f"{board} / {title}: {expr}"
        for board, title, expr in found
        if not expr.startswith(MAY_BE_EMPTY) and not prometheus.query(url, concrete(expr))
    ]
    return len(found), empty
