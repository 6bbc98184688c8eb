"""What rules and dashboards read, held against the Prometheus of the simulation."""

from __future__ import annotations

import json
from collections.abc import Iterator

from monitoring import alerting, expressions
from monitoring.expressions import concrete
from monitoring.simulation import prometheus

# What is there only while an alert fires, or in the course of an incident.
MAY_BE_EMPTY = ("ALERTS{",)
# What no fault of the simulation brings about.
NOT_SIMULATED = {
    "saas_job_overlaps_total",
    "saas_calendar_token_losses_total",
    "saas_calendar_conflicts_total",
}
# An app need not say in which environment it runs; here none does.
OPTIONAL_LABELS = {"deployment_environment_name"}


def empty_panels(url: str) -> tuple[int, list[str]]:
    """How many queries of dashboards were run, and which gave nothing."""
    found = [
        (board["title"], *item)
        for board in expressions.boards()
        for item in expressions.queries(board)
    ]
    empty = [
        f"{board} / {title}: {expr}"
        for board, title, expr in found
        if not expr.startswith(MAY_BE_EMPTY) and not prometheus.query(url, concrete(expr))
    ]
    return len(found), empty


def unexposed(url: str) -> tuple[int, list[str]]:
    """How many metrics rules and dashboards name, and which of them, or of their labels, nobody sent."""
    named: dict[str, set[str]] = {}
    for expr in expressions.everywhere():
        for name in expressions.metrics(expr) - NOT_SIMULATED:
            named.setdefault(name, set())
        for name, inner in expressions.selectors(expr):
            named.setdefault(name, set()).update(expressions.matched(inner))
    return len(named), [
        lack for name in sorted(named) for lack in _lacks(url, name, named[name] - OPTIONAL_LABELS)
    ]


def _lacks(url: str, name: str, labels: set[str]) -> Iterator[str]:
    seen = f"last_over_time({name}[1h])"
    if name not in {*alerting.RECORDS, "ALERTS"} | NOT_SIMULATED and not prometheus.query(
        url, seen
    ):
        yield name
    for label in sorted(labels):
        selector = json.dumps({name: label})
        if name not in NOT_SIMULATED and not prometheus.query(
            url, f'last_over_time({name}{{{label}!=""}}[1h])'
        ):
            yield f"a label: {selector}"
