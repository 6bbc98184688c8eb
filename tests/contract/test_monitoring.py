"""Rules, dashboards, routes and runbooks agree with the contract, with each other and with the real tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import alerting, expressions, generate, request_rules, specification
from monitoring.expressions import RULES, boards, concrete, everywhere, queries, rules
from otel_shim import _semconv as semconv
from otel_shim.relay import measures
from tests.contract import rule_cases

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
TESTS = tuple(sorted((MONITORING / "tests").glob("*.yaml")))
CONFIG = MONITORING / "alertmanager/alertmanager.yaml"
RUNBOOKS = (ROOT / "docs/observability/runbooks.md").read_text()
SPEC = specification.load()

# What Prometheus itself gives: series of alerts, and labels of histograms, alerts and promoted resource attributes.
UPSTREAM_METRICS = {"ALERTS", "up"}
SCRAPED = {"job", "instance"}
SENT = {*SCRAPED, *alerting.SERVICE}
# Labels that a rule of ours sets.
OWN_LABELS = {"journey", "alert_id", "severity", "service", "endpoint", "reason"}
# What the relay serves on /metrics, and its labels.
RELAY_METRICS = {f"{measures.PREFIX}{name}_total" for name in measures.HELP}
RELAY_LABELS = {
    alerting.RELAY_REFUSED: {"alertmanager"},
    alerting.RELAY_LOOKUPS: {"backend"},
    alerting.RELAY_LOST: set[str](),
}
WHERE = (alerting.NAMESPACE, "service", alerting.ENVIRONMENT, "endpoint")
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
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


def alert_rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for rule in rules() if "alert" in rule]


@cache
def contract() -> dict[str, set[str]]:
    """The labels of each metric of the contract, as Prometheus names them."""
    content = yaml.safe_load((ROOT / "semconv/metrics.yaml").read_text())
    found = {}
    for metric in (*content["groups"], *content["upstream"]):
        unit = "_seconds" if metric["unit"] == "s" else ""
        name = metric["metric_name"].replace(".", "_") + unit
        labels = SENT | {item["ref"].replace(".", "_") for item in metric["attributes"]}
        for suffix in SUFFIXES.get(metric["instrument"], ("",)):
            found[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


@cache
def labels_of(metric: str) -> set[str]:
    """The labels that a metric has: by the contract, upstream, or by the rules that record it."""
    if metric == "ALERTS":
        return set().union(*contract().values(), OWN_LABELS, {"alertname", "alertstate"})
    if metric in RELAY_METRICS | {"up"}:
        return SCRAPED | RELAY_LABELS.get(metric, set())
    if metric in alerting.RECORDS:
        return set().union(*(labels_recorded(r) for r in rules() if r.get("record") == metric))
    return contract()[metric]


def labels_recorded(rule: dict[str, Any]) -> set[str]:
    """The labels of what a rule records."""
    kept = expressions.kept(rule["expr"])
    if kept is None:
        kept = set().union(*(labels_of(name) for name in expressions.metrics(rule["expr"])))
    return kept | set(rule.get("labels", ()))


def dashboard(uid: str) -> str:
    """Where the default Grafana shows a dashboard: PagerDuty, Slack and mail make links of whole addresses only."""
    return f"http://localhost:3000/d/{uid}"


def test_messages_link_to_the_grafana_that_is_named() -> None:
    """Another address in alerts.yaml is all that is needed."""
    spec = replace(SPEC, links={**SPEC.links, "dashboard": "https://grafana.example/x/d/{uid}"})
    given = [rule["annotations"] for rule in request_rules.group(spec) if "alert" in rule]
    assert {g["dashboard_url"] for g in given} == {"https://grafana.example/x/d/saas-api-health"}


def test_generated_files_are_as_generated() -> None:
    """`make generate` would change nothing."""
    assert not generate.differing(generate.everything(), MONITORING)


@pytest.mark.parametrize("expr", everywhere())
def test_every_metric_exists(expr: str) -> None:
    """In the contract, upstream, or among our recording rules."""
    named = expressions.metrics(expr)
    assert named, "an expression without a metric"
    assert named <= set(contract()) | RELAY_METRICS | UPSTREAM_METRICS | set(alerting.RECORDS)


@pytest.mark.parametrize("expr", everywhere())
def test_every_label_exists(expr: str) -> None:
    """On the metric that is to have it: in the contract, upstream, or set by our rules."""
    lacking = [(m, label) for m, label in expressions.named(expr) if label not in labels_of(m)]
    assert not lacking
    anybody = set().union(*(labels_of(metric) for metric in expressions.metrics(expr)))
    assert expressions.groupings(expr) <= anybody


def test_a_label_of_another_metric_is_missed() -> None:
    """A plan is a label of requests, not of jobs; neither a matcher nor an aggregation may ask for it."""
    jobs, requests = f"{alerting.JOBS}_count", f"{alerting.REQUESTS}_count"
    for expr in (f'{jobs}{{saas_plan="a"}}', f"sum by (saas_plan) (rate({jobs}[5m]))"):
        assert [*expressions.named(expr)] == [(jobs, "saas_plan")]
    assert "saas_plan" in labels_of(requests) and "saas_plan" not in labels_of(jobs)
    nested = f'sum by (a) (max by (b) (x{{c=")"}}[1m])) or time() - max by (d, le) ({jobs}[1m])'
    assert expressions.kept(nested) == {"a", "d"}
    assert {*expressions.named(nested)} >= {("x", "a"), ("x", "b"), ("x", "c"), (jobs, "d")}


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
    assert given["dashboard_url"] in {dashboard(board["uid"]) for board in boards()}


@pytest.mark.parametrize("alert", SPEC.alerts.values(), ids=lambda alert: alert.id)
def test_an_alert_has_reasons_and_a_runbook(alert: specification.Alert) -> None:
    """The runbook has every section."""
    assert alert.rationale and alert.trace_source
    assert all(objective.rationale for objective in alert.objectives)
    section = RUNBOOKS.split(f"\n## {alert.id}\n")[1].split("\n## ")[0]
    assert not [name for name in SECTIONS if f"**{name}" not in section]


@pytest.mark.parametrize("subject", rule_cases.subjects(), ids=" ".join)
def test_promtool_sees_an_alert_fire_resolve_and_be_silent(subject: rule_cases.Subject) -> None:
    """By what the cases expect, not by their names: each reason fires and ends; something of its kind does not fire."""
    alert = SPEC.alerts[subject.alert_id]
    seen = [rule_cases.seen(case, subject, alert.alertname) for case in rule_cases.cases(TESTS)]
    assert any(True in moments for moments in seen), "no case in which it fires"
    if alert.severity == "heartbeat":  # it fires always
        return
    assert any(rule_cases.ends(moments) for moments in seen), "no case in which it ends"
    fed = rule_cases.metrics_behind(alert.id)
    quiet = [
        case["name"]
        for case, moments in zip(rule_cases.cases(TESTS), seen, strict=True)
        if moments and True not in moments and fed & rule_cases.metrics_given(case)
    ]
    assert quiet, "no case in which it has something to judge and is silent"


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


def test_guides_promote_what_rules_tell_services_apart_by() -> None:
    """Namespace, name and environment, in the configuration and in the guide."""
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    promoted = config["otlp"]["promote_resource_attributes"]
    assert {alerting.series(name) for name in promoted} == set(alerting.SERVICE)
    line = f"otlp: {{promote_resource_attributes: [{', '.join(promoted)}]}}"
    assert line in (ROOT / "docs/metrics.md").read_text()


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
    """Grouped by all that tells two alerts apart, or the ids of a second endpoint, or of staging, would never be seen."""
    config = yaml.safe_load(CONFIG.read_text())
    assert set(config["route"]["group_by"]) == {"alertname", "reason", *WHERE}
    receivers = {item["name"]: item for item in config["receivers"]}
    routed = {r["matchers"][0].split(" = ")[1]: r["receiver"] for r in config["route"]["routes"]}
    severities = {rule["labels"]["severity"] for rule in alert_rules()} - {"heartbeat"}
    assert severities == {"critical", "warning"}
    for severity in severities:
        channels = receivers[routed[severity]]
        for kind in ("pagerduty_configs", "slack_configs", "email_configs"):
            assert channels[kind] and all(item["send_resolved"] for item in channels[kind])


def test_what_is_held_back_is_of_the_same_environment_and_ends_later() -> None:
    """What is held back when it ends is never said to be over: no alert may end together with, or before, its source."""
    (held,) = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    assert set(held["equal"]) == set(WHERE)
    assert held["source_matchers"] == ["alert_id = job.missed"]
    assert held["target_matchers"] == ["alert_id = job.late", "reason = no_success"]


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


def test_the_search_offers_every_journey() -> None:
    """Each route belongs to the first that matches, as for the alert; slow is above the journey's own threshold."""
    (search,) = (board for board in boards() if board["uid"] == "saas-search")
    (choice,) = (item for item in search["templating"]["list"] if item["name"] == "journey")
    # As Grafana reads a custom variable.
    offered = dict(text.rsplit(" : ", 1) for text in re.split(r"(?<!\\),", choice["query"]))
    assert [*offered] == [journey.id for journey in SPEC.journeys]
    first, value = next(iter(offered.items()))
    assert choice["current"] == {"text": first, "value": value}
    for place, journey in enumerate(SPEC.journeys):
        condition = offered[journey.id]
        assert f'span.http.route =~ "{journey.routes}"' in condition
        before = "|".join(item.routes for item in SPEC.journeys[:place])
        assert (f'span.http.route !~ "{before}"' in condition) == bool(before)
        assert f"span:duration > {alerting.duration(journey.threshold)}" in condition
    asked = [t["query"] for p in search["panels"] for t in p["targets"] if "expr" not in t]
    assert "{ ${journey:raw} }" in asked


def test_grafana_is_provisioned_with_what_dashboards_use() -> None:
    """Data sources of each kind that they choose from, exemplars that link to one of them, rates that are not empty."""
    sources = yaml.safe_load(expressions.DATA_SOURCES.read_text())["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    assert len(by_uid) == len(sources)
    assert all(source["url"].startswith("http://localhost:") for source in sources)
    kinds = {
        item["query"]
        for board in boards()
        for item in board["templating"]["list"]
        if item["type"] == "datasource"
    }
    assert kinds <= {source["type"] for source in sources}
    assert any([*expressions.with_exemplars(board)] for board in boards())
    for destination in expressions.destinations():
        assert destination["name"] == "trace_id"
        assert by_uid[destination["datasourceUid"]]["type"] in ("tempo", "jaeger")
    (metrics,) = (source for source in sources if source["type"] == "prometheus")
    assert specification.seconds(metrics["jsonData"]["timeInterval"]) == SPEC.export


def test_grafana_finds_the_dashboards() -> None:
    """Where the guide says that they are copied to; nobody edits them there."""
    file = MONITORING / "grafana/provisioning/dashboards/saas.yaml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert provider["type"] == "file" and provider["allowUiUpdates"] is False
    guide = (ROOT / "docs/observability/dashboards.md").read_text()
    assert provider["options"]["path"] in guide


def test_every_choice_is_one_that_can_be_asked_for() -> None:
    """`label_values(metric, label)` of a metric that has the label; the simulation asks for its values."""
    choices = [choice for board in boards() for choice in expressions.variables(board)]
    assert {name for name, _, _ in choices} >= {"environment", "service", "route"}
    for _, metric, label in choices:
        assert label in labels_of(metric)
