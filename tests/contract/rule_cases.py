"""What the cases of promtool expect of an alert, moment by moment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from monitoring import expressions, specification

Case = dict[str, Any]
_ALERTS = re.compile(r"\bALERTS\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Subject(NamedTuple):
    """An alert, and which of its reasons; empty where it has none."""

    alert_id: str
    reason: str = ""


def subjects() -> list[Subject]:
    """Each alert with each reason that a rule gives."""
    labels = [rule["labels"] for rule in expressions.rules() if "alert" in rule]
    return sorted({Subject(each["alert_id"], each.get("reason", "")) for each in labels})


@cache
def cases(files: Sequence[Path]) -> tuple[Case, ...]:
    """Every case."""
    return tuple(case for path in files for case in yaml.safe_load(path.read_text())["tests"])


def seen(case: Case, subject: Subject, alertname: str) -> list[bool]:
    """Whether the alert fires at each moment at which the case says something about it, in order."""
    told = [*_of_rules(case, subject, alertname), *_of_queries(case, subject, alertname)]
    return [fires for _, fires in sorted(told)]


def ends(moments: Sequence[bool]) -> bool:
    """Whether it fires, and later does not."""
    return True in moments and False in moments[moments.index(True) :]


def metrics_behind(alert_id: str) -> set[str]:
    """The raw metrics that decide about an alert."""
    rules = [r for r in expressions.rules() if r.get("labels", {}).get("alert_id") == alert_id]
    found = set[str]().union(*(expressions.metrics(rule["expr"]) for rule in rules))
    while recorded := {name for name in found if name.startswith("saas:")}:
        found -= recorded
        sources = [rule["expr"] for rule in expressions.rules() if rule.get("record") in recorded]
        found |= set[str]().union(*(expressions.metrics(expr) for expr in sources)) - recorded
    return found


def metrics_given(case: Case) -> set[str]:
    """The metrics that a case makes up."""
    return {each["series"].partition("{")[0] for each in case["input_series"]}


def _of_rules(case: Case, subject: Subject, alertname: str) -> Iterator[tuple[float, bool]]:
    for each in case.get("alert_rule_test", ()):
        if each["alertname"] == alertname:
            labels = [alert["exp_labels"] for alert in each["exp_alerts"]]
            yield _at(each), any(_is(subject, of) for of in labels)


def _of_queries(case: Case, subject: Subject, alertname: str) -> Iterator[tuple[float, bool]]:
    for each in case.get("promql_expr_test", ()):
        asked = _ALERTS.search(each["expr"])
        matchers = dict(_LABEL.findall(asked[1] or "")) if asked else {"alertname": ""}
        if matchers.get("alertname", alertname) == alertname:
            yield from ((_at(each), fires) for fires in _answer(each, subject, matchers))


def _answer(query: Case, subject: Subject, matchers: dict[str, str]) -> Iterator[bool]:
    """Nothing where the query counts alerts, and not of this name alone."""
    samples = [dict(_LABEL.findall(sample["labels"])) for sample in query["exp_samples"]]
    if not samples or query["expr"].startswith("ALERTS"):
        yield any(_is(subject, of) and of.get("alertstate", "firing") == "firing" for of in samples)
    elif "alertname" in matchers:
        yield not subject.reason


def _is(subject: Subject, labels: dict[str, str]) -> bool:
    return (labels.get("alert_id"), labels.get("reason", "")) == subject


def _at(test: Case) -> float:
    return specification.seconds(str(test["eval_time"]))
