"""Every PromQL expression of rules and dashboards, and the metrics and labels that each names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
RULES = sorted((HERE / "rules").glob("*.yaml"))
BOARDS = sorted((HERE / "dashboards").glob("*.json"))
DATA_SOURCES = HERE / "grafana/provisioning/datasources/saas.yaml"
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_STRING = re.compile(r'"[^"]*"')
_RANGE = re.compile(r"([a-zA-Z_:][\w:]*)\s*\[")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*\"")
_AGGREGATION = re.compile(r"\bby\s*\(([^)]*)\)\s*\(")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left)\s*\(([^)]+)\)")
_RECORDED = re.compile(r"\bsaas:[\w:]+")
_INTERVALS = re.compile(r"\$__(rate_interval|interval|range)")
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_OTHERWISE = re.compile(r"\s+or vector\(0\)")
_LABEL_VALUES = re.compile(r"label_values\(([\w:]+),\s*(\w+)\)")
_VARIABLE = re.compile(r"\$\{?\w+(?::\w+)?\}?")


def rules() -> Iterator[dict[str, Any]]:
    """Every rule."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def boards() -> Iterator[dict[str, Any]]:
    """Every dashboard."""
    yield from (json.loads(path.read_text()) for path in BOARDS)


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and expression of each Prometheus query of a dashboard, rows included."""
    for panel in board.get("panels", ()):
        yield from queries(panel)
        for target in panel.get("targets", ()):
            if "expr" in target:
                yield panel["title"], target["expr"]


def with_exemplars(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and expression of each query whose exemplars a dashboard shows."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            if target.get("exemplar"):
                yield panel["title"], target["expr"]


def destinations() -> list[dict[str, str]]:
    """Where Grafana finds the trace of an exemplar, by the name of its label, as provisioned."""
    sources = yaml.safe_load(DATA_SOURCES.read_text())["datasources"]
    (metrics,) = (source for source in sources if source["type"] == "prometheus")
    found: list[dict[str, str]] = metrics["jsonData"]["exemplarTraceIdDestinations"]
    return found


def concrete(expr: str) -> str:
    """The expression with Grafana's variables at their widest: everything, over five minutes."""
    return _VARIABLE.sub(".*", _INTERVALS.sub("5m", expr))


def without_default(expr: str) -> str:
    """The expression without the zero that it gives where there is nothing."""
    return _OTHERWISE.sub("", expr)


def variables(board: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, metric and label of each choice that a dashboard asks Prometheus for. Raises ValueError for another kind."""
    for item in board["templating"]["list"]:
        if item["type"] == "query":
            match = _LABEL_VALUES.fullmatch(item["query"])
            if match is None:
                raise ValueError(f"not label_values(metric, label): {item['query']}")
            yield item["name"], match[1], match[2]


def everywhere() -> list[str]:
    """Every expression: of rules, of dashboards, and what the relay asks for."""
    found = [rule["expr"] for rule in rules()]
    asked = [rule.get("annotations", {}).get("relay_exemplars") for rule in rules()]
    found += [_TEMPLATE.sub('"x"', selector) for selector in asked if selector]
    found += [expr for board in boards() for _, expr in queries(board)]
    return [expr for expr in found if expr != "vector(1)"]


def selectors(expr: str) -> list[tuple[str, str]]:
    """Metric and matchers of each selector."""
    return [(name, inner) for name, inner in _SELECTOR.findall(expr)]


def records(expr: str) -> set[str]:
    """The recorded series that an expression names."""
    return set(_RECORDED.findall(expr))


def metrics(expr: str) -> set[str]:
    """The metrics that an expression names, recorded ones too."""
    bare = set(_RANGE.findall(_STRING.sub('""', expr)))
    return {name for name, _ in selectors(expr)} | bare | records(expr)


def matched(inner: str) -> set[str]:
    """The labels that the matchers of a selector name."""
    return set(_MATCHER.findall(inner))


def groupings(expr: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    return set[str]().union(*(_names(inner) for inner in _GROUPING.findall(expr)))


def aggregations(expr: str) -> Iterator[tuple[set[str], str]]:
    """The labels that each aggregation keeps, and what it aggregates; the outermost come first."""
    for match in _AGGREGATION.finditer(expr):
        inner = expr[match.end() : _closing(expr, match.end())]
        yield _names(match[1]), inner


def kept(expr: str) -> set[str] | None:
    """The labels that the outermost aggregations keep; None where there is none."""
    found, rest = None, expr
    while match := _AGGREGATION.search(rest):
        found = (found or set()) | _names(match[1])
        rest = rest[_closing(rest, match.end()) :]
    return found and found - {"le"}


def named(expr: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that the expression expects of it, in a matcher or by an aggregation."""
    for metric, inner in selectors(expr):
        yield from ((metric, label) for label in matched(inner))
    for labels, inner in aggregations(expr):
        yield from ((metric, label) for metric in metrics(inner) for label in labels)


def _closing(expr: str, start: int) -> int:
    """Where the parenthesis that was opened before `start` is closed."""
    depth, place = 1, start
    plain = _STRING.sub(lambda match: '"' + "_" * (len(match[0]) - 2) + '"', expr)
    while depth:
        depth += {"(": 1, ")": -1}.get(plain[place], 0)
        place += 1
    return place - 1


def _names(text: str) -> set[str]:
    return {part.strip() for part in text.split(",") if part.strip()}
