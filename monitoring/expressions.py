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
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_STRING = re.compile(r'"[^"]*"')
_RANGE = re.compile(r"([a-zA-Z_:][\w:]*)\s*\[")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left)\s*\(([^)]+)\)")
_RECORDED = re.compile(r"\bsaas:[\w:]+")
_INTERVALS = re.compile(r"\$__(rate_interval|interval|range)")
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
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


def concrete(expr: str) -> str:
    """The expression with Grafana's variables at their widest: everything, over five minutes."""
    return _VARIABLE.sub(".*", _INTERVALS.sub("5m", expr))


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
    return {part.strip() for inner in _GROUPING.findall(expr) for part in inner.split(",")}


def labels(expr: str) -> set[str]:
    """All labels that an expression names."""
    return groupings(expr).union(*(matched(inner) for _, inner in selectors(expr)))
