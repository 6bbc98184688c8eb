"""Rules, dashboards, routes and runbooks agree with the contract, with each other and with the real tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import alerting, expressions, generate, specification
from monitoring.expressions import RULES, boards, concrete, everywhere, queries, rules
from otel_shim import _semconv as semconv
from otel_shim.relay import measures

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
TESTS = sorted((MONITORING / "tests").glob("*.yaml"))
CONFIG = MONITORING / "alertmanager/alertmanager.yaml"
RUNBOOKS = (ROOT / "docs/observability/runbooks.md").read_text()
SPEC = specification.load()

# What Prometheus itself gives: series of alerts, and labels of histograms, alerts and promoted resource attributes.
UPSTREAM_METRICS = {"ALERTS", "up"}
UPSTREAM_LABELS = {"le", "alertstate", "alertname", "job", "instance", *alerting.SERVICE}
# Labels that a rule of ours sets.
OWN_LABELS = {"journey", "alert_id", "severity", "service", "endpoint", "reason"}
# What the relay serves on /metrics.
RELAY_METRICS = {f"{measures.PREFIX}{name}_total" for name in measures.HELP}
RELAY_LABELS = {"alertmanager", "backend", "source"}
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
WATCHDOG = "watchdog"
SECTIONS = (
    "Meaning",
    "Impact",
    "Triage",
    "Mitigation",
    "Verification",
    "Escalation",
    "False alarms",
    "Simulation",
)


def binary(name: str) -> Path:
    """A tool built here; its absence is a failure, not a skip."""
    path = Path(os.environ.get("OTEL_SHIM_BINARIES", ROOT / ".build/bin")) / name
    if not path.is_file():
        pytest.fail(f"{path} is missing: run make monitoring-binaries")
    return path


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def alert_rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for rule in rules() if "alert" in rule]


def exposed() -> tuple[set[str], set[str]]:
    """Metrics and labels of the contract as Prometheus names them."""
    contract = yaml.safe_load((ROOT / "semconv/metrics.yaml").read_text())
    described = [*contract["groups"], *contract["upstream"]]
    metrics, labels = set(), set()
    for metric in described:
        unit = "_seconds" if metric["unit"] == "s" else ""
        name = metric["metric_name"].replace(".", "_") + unit
        metrics |= {name + suffix for suffix in SUFFIXES.get(metric["instrument"], ("",))}
        labels |= {item["ref"].replace(".", "_") for item in metric["attributes"]}
    return metrics | RELAY_METRICS, labels | RELAY_LABELS


def test_generated_files_are_as_generated() -> None:
    """`make generate` would change nothing."""
    assert not generate.differing(generate.everything(), MONITORING)


@pytest.mark.parametrize("expr", everywhere())
def test_every_metric_exists(expr: str) -> None:
    """In the contract, upstream, or among our recording rules."""
    metrics, _ = exposed()
    named = expressions.metrics(expr)
    assert named, "an expression without a metric"
    assert named <= metrics | UPSTREAM_METRICS | set(alerting.RECORDS)


@pytest.mark.parametrize("expr", everywhere())
def test_every_label_exists(expr: str) -> None:
    """In the contract, upstream, or set by our rules."""
    _, labels = exposed()
    assert expressions.labels(expr) <= labels | UPSTREAM_LABELS | OWN_LABELS


def test_no_label_says_who() -> None:
    """No user, organisation or request in any expression or label."""
    forbidden = (semconv.SAAS_ORG_ID, semconv.SAAS_REQUEST_ID, "user.hash", "user.id")
    text = "\n".join(everywhere()) + "".join(str(rule.get("labels")) for rule in rules())
    assert not [name for name in forbidden if name.replace(".", "_") in text]


def test_every_recording_rule_is_used_and_there() -> None:
    """Nothing is recorded for nobody."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded == set(alerting.RECORDS)
    used = {name for expr in everywhere() for name in expressions.records(expr)}
    assert recorded <= used


def test_depth_is_of_one_state() -> None:
    """Items that wait and items that failed are not added up."""
    for expr in everywhere():
        for name, inner in expressions.selectors(expr):
            if name == alerting.QUEUE_DEPTH:
                by_state = alerting.QUEUE_STATE in expressions.groupings(expr)
                assert alerting.READY in inner or by_state


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: str(rule["labels"]["alert_id"]))
def test_an_alert_has_all_that_a_message_needs(rule: dict[str, Any]) -> None:
    """Labels that route and group it, annotations that explain it, a source of traces or why none is."""
    assert {"alert_id", "severity", "service", "endpoint"} <= set(rule["labels"])
    given = rule["annotations"]
    texts = ("summary", "description", "value", "threshold", "runbook_url", "dashboard_url")
    assert all(given[name] for name in texts)
    assert not re.search(r"(?<!\{)\{\w+\}", " ".join(given[name] for name in texts)), "unfilled"
    assert given.get("relay_no_trace") or {"relay_exemplars", "relay_window"} <= set(given)
    uid = rule["annotations"]["dashboard_url"].removeprefix("/d/")
    assert uid in {board["uid"] for board in boards()}


@pytest.mark.parametrize("alert", SPEC.alerts.values(), ids=lambda alert: alert.id)
def test_an_alert_has_reasons_a_runbook_and_tests(alert: specification.Alert) -> None:
    """The runbook has every section; promtool fires the alert, and sees it silent and resolved."""
    assert alert.rationale and alert.trace_source
    assert all(objective.rationale for objective in alert.objectives)
    section = RUNBOOKS.split(f"\n## {alert.id}\n")[1].split("\n## ")[0]
    assert not [name for name in SECTIONS if f"**{name}" not in section]
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    names = [test["name"] for test in tests if alert.id in test["name"]]
    for what in ("fires", "silent", "resolves"):
        assert [name for name in names if what in name], f"no test: {alert.id} {what}"


def test_every_threshold_is_a_boundary() -> None:
    """Otherwise the histogram would guess."""
    boundaries = semconv.METRIC_BOUNDARIES["http.server.request.duration"]
    assert {journey.threshold for journey in SPEC.journeys} <= set(boundaries)
    streams = semconv.METRIC_BOUNDARIES[semconv.METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE]
    assert SPEC.stream_threshold in streams


def test_promtool_accepts_rules_and_their_tests() -> None:
    """The real parser, and every case of monitoring/tests/."""
    promtool = binary("promtool")
    checked = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = run(promtool, "test", "rules", *TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_promtool_accepts_the_configuration() -> None:
    """With the rules it names."""
    done = run(binary("promtool"), "check", "config", MONITORING / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_parses_every_query_of_the_dashboards() -> None:
    """With Grafana's variables replaced."""
    promtool = binary("promtool")
    for board in boards():
        for title, expr in queries(board):
            done = run(promtool, "--experimental", "promql", "format", concrete(expr))
            assert done.returncode == 0, f"{board['title']} / {title}: {done.stderr}"


@pytest.mark.parametrize(
    ("severity", "receiver"),
    [("critical", "page"), ("warning", "notice"), ("info", "email"), ("surprise", "email")],
)
def test_amtool_sends_each_severity_where_it_belongs(severity: str, receiver: str) -> None:
    """The real router."""
    amtool = binary("amtool")
    done = run(
        *(amtool, "config", "routes", "test", f"--config.file={CONFIG}"),
        *(f"--verify.receivers={receiver}", f"severity={severity}", "alertname=A"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_amtool_sends_the_heartbeat_where_it_is_awaited() -> None:
    """And nowhere else."""
    done = run(
        *(binary("amtool"), "config", "routes", "test", f"--config.file={CONFIG}"),
        *("--verify.receivers=heartbeat", "severity=heartbeat", f"alert_id={WATCHDOG}"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_amtool_accepts_the_configuration() -> None:
    """Templates included."""
    done = run(binary("amtool"), "check-config", CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_reaches_three_channels_and_resolves_there() -> None:
    """Grouped by alert, service and endpoint, or the ids of a second endpoint would never be seen."""
    config = yaml.safe_load(CONFIG.read_text())
    assert config["route"]["group_by"] == ["alertname", "service", "endpoint", "reason"]
    receivers = {item["name"]: item for item in config["receivers"]}
    routed = {r["matchers"][0].split(" = ")[1]: r["receiver"] for r in config["route"]["routes"]}
    severities = {rule["labels"]["severity"] for rule in alert_rules()} - {"heartbeat"}
    assert severities == {"critical", "warning"}
    for severity in severities:
        channels = receivers[routed[severity]]
        for kind in ("pagerduty_configs", "slack_configs", "email_configs"):
            assert channels[kind] and all(item["send_resolved"] for item in channels[kind])


def test_secrets_are_files() -> None:
    """No key, password or webhook stands in the configuration."""
    text = CONFIG.read_text()
    assert not re.search(
        r"^\s*-?\s*(routing_key|service_key|api_url|slack_api_url|smtp_auth_password):",
        text,
        re.MULTILINE,
    )


@pytest.mark.parametrize("board", [*boards()], ids=lambda board: board["uid"])
def test_a_dashboard_is_complete(board: dict[str, Any]) -> None:
    """Ids to link to, titles, descriptions, units; not to be edited in place; panels do not overlap."""
    assert board["editable"] is False
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    variables = {item["name"] for item in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(panels))) - {"__rate_interval", "__range"}
    assert used <= variables
