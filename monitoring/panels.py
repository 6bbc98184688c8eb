"""The dashboards, as Grafana's JSON, made with grafana-foundation-sdk."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    table,
    tempo,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import (
    CustomVariable,
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    TextBoxVariable,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    GridPos,
    VariableHide,
    VariableOption,
)
from opentelemetry.semconv._incubating.attributes.user_attributes import USER_HASH

from monitoring import alerting as names
from monitoring.specification import Specification
from otel_shim import _semconv as semconv

WIDTH = 24
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${metrics}")
TEMPO = DataSourceRef(type_val="tempo", uid="${traces}")
Chart = timeseries.Panel | stat.Panel | table.Panel
HERE = f'{names.ENVIRONMENT}=~"$environment"'
"""In the environment that was chosen; with all of them also what names none."""
SELECTED = f'{HERE}, service_name=~"$service", {names.ROUTE}=~"$route"'
COUNT = f"{names.REQUESTS}_count"
BY_ENDPOINT = f"{names.METHOD}, {names.ROUTE}"
HEALTH_UID = "saas-api-health"
JOBS_UID = "saas-jobs"
QUEUES_UID = "saas-queues"
SEARCH_UID = "saas-search"


def encoded(board: Callable[[Specification], Dashboard], spec: Specification) -> str:
    """The JSON of a dashboard, each panel with an id, so that it can be linked to."""
    with warnings.catch_warnings():
        # The classic schema is what file provisioning of every Grafana since 10 reads.
        warnings.simplefilter("ignore", DeprecationWarning)
        built = board(spec).build()
    content: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(built))
    for number, panel in enumerate(content["panels"], start=1):
        panel["id"] = number
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def base(
    uid: str, title: str, description: str, spec: Specification, seen_in: str = COUNT
) -> Dashboard:
    """What all dashboards share: read-only, links to the runbooks and to each other, the environment.

    `seen_in` is a metric that has all environments.
    """
    runbooks = spec.links["runbook"].partition("#")[0]
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["otel-shim"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .link(link("Runbooks", runbooks))
        .link(link("API health", f"/d/{HEALTH_UID}"))
        .link(link("Jobs", f"/d/{JOBS_UID}"))
        .link(link("Calendars and queues", f"/d/{QUEUES_UID}"))
        .link(link("Search", f"/d/{SEARCH_UID}"))
        .with_variable(DatasourceVariable("metrics").label("Metrics").type("prometheus"))
        .with_variable(DatasourceVariable("traces").label("Traces").type("tempo"))
        .with_variable(variable("environment", names.ENVIRONMENT, seen_in))
    )


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A link in the head of a dashboard."""
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)


def variable(name: str, label: str, metric: str = COUNT) -> QueryVariable:
    """A choice among the values of a label of a metric, requests unless another is named."""
    return (
        QueryVariable(name)
        .label(name.capitalize())
        .datasource(PROMETHEUS)
        .query(f"label_values({metric}, {label})")
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .hide(VariableHide.DONT_HIDE)
    )


def metric(expr: str, legend: str, exemplar: bool = False) -> prometheus.Dataquery:
    """A Prometheus query."""
    return (
        prometheus.Dataquery()
        .datasource(PROMETHEUS)
        .expr(expr)
        .legend_format(legend)
        .exemplar(exemplar)
    )


def chart(
    title: str, description: str, unit: str, queries: Iterable[prometheus.Dataquery]
) -> timeseries.Panel:
    """Lines over time."""
    panel = timeseries.Panel().title(title).description(description).unit(unit)
    panel = panel.datasource(PROMETHEUS).legend(shown_legend())
    for place, query in enumerate(queries):
        panel = panel.with_target(query.ref_id(chr(ord("A") + place)))
    return panel


def shown_legend() -> common.VizLegendOptions:
    """Names below the chart; the SDK hides them unless told otherwise."""
    return common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)


def number(title: str, description: str, unit: str, expr: str) -> stat.Panel:
    """One figure, now."""
    panel = stat.Panel().title(title).description(description).unit(unit).datasource(PROMETHEUS)
    return panel.with_target(metric(expr, title).instant().ref_id("A"))


def laid_out(board: Dashboard, rows: Sequence[tuple[int, Sequence[Chart]]]) -> Dashboard:
    """Panels in rows of a height, each as wide as its neighbours."""
    top = 0
    for height, panels in rows:
        wide = WIDTH // len(panels)
        for place, panel in enumerate(panels):
            position = GridPos(h=height, w=wide, x=place * wide, y=top)
            board = board.with_panel(panel.grid_pos(position))
        top += height
    return board


def api_health(spec: Specification) -> Dashboard:
    """Is the API well, and if not, where: every panel leads to a trace through its exemplars."""
    about = "Requests, errors and latency by endpoint; dots on the latency panels are requests: they open the trace."
    board = base(HEALTH_UID, "API health", about, spec)
    board = board.with_variable(variable("service", "service_name"))
    board = board.with_variable(variable("route", names.ROUTE))
    rows: list[tuple[int, Sequence[Chart]]] = [
        (4, figures()),
        (8, [traffic(), errors(spec)]),
        (8, [latency(spec), objectives(spec)]),
        (8, [streams(spec), jobs(spec)]),
        (8, [by_label("Requests by plan", semconv.SAAS_PLAN), by_operation()]),
    ]
    return laid_out(board, rows)


def figures() -> list[Chart]:
    """The first line: is anything wrong?"""
    count = COUNT
    failed = f"sum(rate({count}{{{SELECTED}, {names.SERVER_ERROR}}}[$__rate_interval]))"
    all_of = f"sum(rate({count}{{{SELECTED}}}[$__rate_interval]))"
    p95 = f"sum by (le) (rate({names.REQUESTS}_bucket{{{SELECTED}}}[$__rate_interval]))"
    return [
        number(
            "Alerts",
            "Alerts that fire now.",
            "none",
            'count(ALERTS{alertstate="firing", severity!="heartbeat"}) or vector(0)',
        ),
        number("Requests", "Requests a second.", "reqps", all_of),
        number("Errors", "Share of 5xx.", "percentunit", f"({failed} or vector(0)) / {all_of}"),
        number("p95", "All endpoints together.", "s", f"histogram_quantile(0.95, {p95})"),
    ]


def traffic() -> timeseries.Panel:
    """Requests by endpoint."""
    expr = f"sum by ({BY_ENDPOINT}) (rate({names.REQUESTS}_count{{{SELECTED}}}[$__rate_interval]))"
    legend = f"{{{{{names.METHOD}}}}} {{{{{names.ROUTE}}}}}"
    return chart("Requests by endpoint", "Requests a second.", "reqps", [metric(expr, legend)])


def errors(spec: Specification) -> timeseries.Panel:
    """4xx and 5xx by endpoint and status."""
    selector = f'{SELECTED}, {names.STATUS}=~"[45].."'
    by = f"{BY_ENDPOINT}, {names.STATUS}"
    expr = f"sum by ({by}) (rate({names.REQUESTS}_count{{{selector}}}[$__rate_interval]))"
    legend = f"{{{{{names.STATUS}}}}} {{{{{names.METHOD}}}}} {{{{{names.ROUTE}}}}}"
    about = "4xx and 5xx a second. " + runbook(spec, "api.5xx")
    return chart("Errors by endpoint", about, "reqps", [metric(expr, legend)])


def latency(spec: Specification) -> timeseries.Panel:
    """Quantiles with exemplars."""
    buckets = f"sum by (le) (rate({names.REQUESTS}_bucket{{{SELECTED}}}[$__rate_interval]))"
    queries = [
        metric(f"histogram_quantile({q}, {buckets})", f"p{q * 100:g}", exemplar=q == 0.95)
        for q in (0.5, 0.95, 0.99)
    ]
    about = "Dots are requests (exemplars): they carry request and trace id. " + runbook(
        spec, "api.latency"
    )
    return chart("Latency", about, "s", queries)


def objectives(spec: Specification) -> timeseries.Panel:
    """The p95 that the alert judges, by endpoint."""
    expr = f"{names.P95_RECORD}{{{SELECTED}}}"
    legend = f"{{{{journey}}}}: {{{{{names.METHOD}}}}} {{{{{names.ROUTE}}}}}"
    limits = ", ".join(f"{j.id} {names.duration(j.threshold)}" for j in spec.journeys)
    about = f"What the alert reads. Objectives: {limits}. {runbook(spec, 'api.latency')}"
    return chart("p95 by journey", about, "s", [metric(expr, legend)])


def streams(spec: Specification) -> timeseries.Panel:
    """Time to first byte."""
    buckets = (
        f"sum by (le, {names.ROUTE}) (rate({names.STREAMS}_bucket{{{SELECTED}}}[$__rate_interval]))"
    )
    query = metric(f"histogram_quantile(0.95, {buckets})", f"{{{{{names.ROUTE}}}}}", exemplar=True)
    limit = names.duration(spec.stream_threshold)
    about = f"p95 of the time to the first byte of streams; objective {limit}."
    return chart("Streams: first byte", about, "s", [query])


def jobs(spec: Specification) -> timeseries.Panel:
    """Executions by job and outcome; the value is the process's total, as jobs' processes are short."""
    outcome = names.series(semconv.SAAS_JOB_OUTCOME)
    named = f'{names.OPERATION}!=""'
    expr = f"sum by ({names.OPERATION}, {outcome}) (last_over_time({names.JOBS}_count{{{named}}}[$__range]))"
    legend = f"{{{{{names.OPERATION}}}}} {{{{{outcome}}}}}"
    about = "Executions in the range shown. " + runbook(spec, "audit.job.failure")
    return chart("Jobs", about, "none", [metric(expr, legend)])


def by_label(title: str, attribute: str) -> timeseries.Panel:
    """Requests by one of our dimensions."""
    label = names.series(attribute)
    expr = f"sum by ({label}) (rate({names.REQUESTS}_count{{{SELECTED}}}[$__rate_interval]))"
    return chart(title, "Requests a second.", "reqps", [metric(expr, f"{{{{{label}}}}}")])


def by_operation() -> timeseries.Panel:
    """Requests by operation."""
    return by_label("Requests by operation", semconv.SAAS_OPERATION)


def runbook(spec: Specification, alert: str) -> str:
    """A link for a description, which Grafana shows as Markdown."""
    url = spec.links["runbook"].replace("{anchor}", alert.replace(".", ""))
    return f"[Runbook {alert}]({url})"


def search(spec: Specification) -> Dashboard:
    """From an id to its traces: one field for each kind of question."""
    about = "Paste an id: a request's (X-Request-Id), an organisation's, a user's pseudonym, or choose a journey."
    board = base(SEARCH_UID, "Search", about, spec).refresh("")
    for name, label in (("request", "Request id"), ("org", "Organisation"), ("user", "User hash")):
        board = board.with_variable(TextBoxVariable(name).label(label).default_value(""))
    board = board.with_variable(journey_choice(spec))
    board = board.with_variable(variable("service", "service_name"))
    board = board.with_variable(variable("route", names.ROUTE))
    rows: list[tuple[int, Sequence[Chart]]] = [
        (8, [found("By request", semconv.SAAS_REQUEST_ID, "request")]),
        (8, [found("By organisation", semconv.SAAS_ORG_ID, "org")]),
        (8, [found("By user", USER_HASH, "user")]),
        (8, [journey_traces(), latency(spec)]),
    ]
    return laid_out(board, rows)


def found(title: str, attribute: str, name: str) -> table.Panel:
    """The traces with an id."""
    about = f"Traces with {attribute} as pasted above; empty while nothing is pasted."
    return traces(title, about, f'{{ span.{attribute} = "${{{name}}}" }}')


def journey_choice(spec: Specification) -> CustomVariable:
    """The journeys of alerts.yaml; the value of each is its condition in TraceQL."""
    pairs = {
        item.id: journey_condition(spec, place).replace(",", "\\,")
        for place, item in enumerate(spec.journeys)
    }
    first, condition = next(iter(pairs.items()))
    choices = ",".join(f"{name} : {value}" for name, value in pairs.items())
    return (
        CustomVariable("journey")
        .label("Journey")
        .values(choices)
        .current(VariableOption(text=first, value=condition))
    )


def journey_condition(spec: Specification, place: int) -> str:
    """Failed requests of a journey's routes, which no journey before it has, and those above its threshold."""
    journey, before = spec.journeys[place], spec.journeys[:place]
    chosen = [f'span.http.route =~ "{journey.routes}"']
    if before:
        chosen.append(f'span.http.route !~ "{"|".join(item.routes for item in before)}"')
    wrong = f"(span:status = error || span:duration > {names.duration(journey.threshold)})"
    return " && ".join([*chosen, wrong])


def journey_traces() -> table.Panel:
    """The failed or slow requests of the journey chosen."""
    about = "Requests of the journey chosen above that failed or took longer than its objective."
    return traces("By journey: failed or slow", about, "{ ${journey:raw} }")


def traces(title: str, about: str, traceql: str) -> table.Panel:
    """A table of traces, each row a link."""
    query = tempo.Dataquery().datasource(TEMPO).query(traceql).query_type("traceql")
    query = query.limit(20).ref_id("A")
    panel = table.Panel().title(title).description(about).datasource(TEMPO).unit("none")
    return panel.with_target(query)
