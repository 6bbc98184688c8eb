"""What dashboards and rules read, held against the Prometheus of the simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monitoring import alerting, expressions
from monitoring.expressions import concrete, without_default
from monitoring.simulation import prometheus

# What no fault of the simulation brings about.
NOT_SIMULATED = {
    "saas_job_overlaps_total",
    "saas_calendar_token_losses_total",
    "saas_calendar_conflicts_total",
}


def examined(url: str, since: float) -> tuple[str, list[str]]:
    """What to say of queries, choices and names in dashboards and rules, and what is wrong with them."""
    queries, empty = empty_panels(url, since)
    choices, nothing = empty_choices(url)
    dots, unlinked = unlinked_exemplars(url, since)
    names, unknown = unexposed(url, since)
    said = (
        f"{queries} queries run, {len(empty)} without data; {choices} choices, {len(nothing)} empty;"
        f" {dots} panels with exemplars, {len(unlinked)} without a link; {names} metrics and labels of rules and dashboards, {len(unknown)} not exposed"
    )
    problems = [f"dashboard query: {item}" for item in empty]
    problems += [f"dashboard choice without values: {item}" for item in nothing]
    problems += [f"dashboard exemplars without a trace: {item}" for item in unlinked]
    return said, problems + [f"named and not exposed: {item}" for item in unknown]


def empty_panels(url: str, since: float) -> tuple[int, list[str]]:
    """How many queries of dashboards were run over the simulation, and which lack data or a label.

    A zero in place of nothing is no data: the query is run without it.
    """
    found = [
        (board["title"], *item)
        for board in expressions.boards()
        for item in expressions.queries(board)
        if not expressions.metrics(item[1]) <= NOT_SIMULATED
    ]
    wrong = []
    for board, title, expr in found:
        series = prometheus.over_time(url, concrete(without_default(expr)), since)
        wrong += [f"{board} / {title}: {lack}: {expr}" for lack in lacks(expr, series)]
    return len(found), wrong


def lacks(expr: str, series: list[dict[str, Any]]) -> Iterator[str]:
    """What the answer to a query lacks: any data, or a label by which it is grouped."""
    if not series:
        yield "no data"
        return
    for label in sorted(expressions.kept(expr) or ()):
        if not any(each["metric"].get(label) for each in series):
            yield f"no {label}"


def empty_choices(url: str) -> tuple[int, list[str]]:
    """How many choices dashboards offer, and which have no values."""
    found = [
        (board["title"], *choice)
        for board in expressions.boards()
        for choice in expressions.variables(board)
    ]
    return len(found), [
        f"{board} / {name}: {metric}, {label}"
        for board, name, metric, label in found
        if not prometheus.label_values(url, metric, label)
    ]


def unlinked_exemplars(url: str, since: float) -> tuple[int, list[str]]:
    """How many panels show exemplars, and which have none with the label that Grafana makes a link of."""
    names = {item["name"] for item in expressions.destinations()}
    found = [
        (board["title"], *item)
        for board in expressions.boards()
        for item in expressions.with_exemplars(board)
    ]
    return len(found), [
        f"{board} / {title}"
        for board, title, expr in found
        if not any(names <= labels for labels in prometheus.exemplars(url, concrete(expr), since))
    ]


def unexposed(url: str, since: float) -> tuple[int, list[str]]:
    """How many metrics, and labels of each, rules and dashboards name; and which of them nobody sent."""
    everywhere = expressions.everywhere()
    named = {name: set[str]() for expr in everywhere for name in expressions.metrics(expr)}
    for expr in everywhere:
        for name, label in expressions.named(expr):
            named[name].add(label)
    lacking = []
    for name in sorted(set(named) - NOT_SIMULATED):
        seen = prometheus.labels_seen(url, name, since)
        # What records or tells of an alert may have nothing to say; what it is asked for it must have said.
        if not seen and name not in {*alerting.RECORDS, "ALERTS"}:
            lacking.append(name)
        lacking += [f"{name} by {label}" for label in sorted(named[name] - seen)]
    return len(named) + sum(map(len, named.values())), lacking
