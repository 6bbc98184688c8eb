"""Rules about requests and streams."""

from __future__ import annotations

import json

from opentelemetry.semconv.attributes import http_attributes as http

from monitoring import alerting as names
from monitoring.alerting import Rule, Subject, alert_rule, by, duration, record, value
from monitoring.specification import Alert, Journey, Specification

ENDPOINT = f"{value(names.METHOD)} {value(names.ROUTE)}"
NO_ROUTE = f'{names.ROUTE}=""'
NOT_UNROUTED = f'{names.ROUTE}!="{names.UNROUTED}"'


def _subject() -> Subject:
    return names.of_service(ENDPOINT)


def group(spec: Specification) -> list[Rule]:
    """What is read of requests, and the alerts on it.

    Latency is of routes alone: what has none was answered by a middleware, or is nobody's.
    """
    errors, latency = spec.alerts["api.5xx"], spec.alerts["api.latency"]
    streamed = requests(spec, names.STREAMS, names.ROUTED, latency.window)
    return [
        *error_records(spec, errors),
        record(names.STREAMED_RECORD, f"sum {by(*names.ENDPOINT)} ({streamed})"),
        *(p95_of_journey(spec, place, latency) for place in range(len(spec.journeys))),
        record(
            names.FIRST_BYTE_RECORD,
            p95(names.STREAMS, names.ROUTED, latency.window),
            journey="stream",
        ),
        errors_alert(spec, errors),
        unrouted_alert(spec, errors),
        *(latency_alert(spec, journey, latency) for journey in spec.journeys),
        stream_alert(spec, latency),
    ]


def error_records(spec: Specification, alert: Alert) -> list[Rule]:
    """Requests and errors by endpoint, over all workers; what failed before routing is one endpoint."""
    routed, failed, unrouted, lost = (
        requests(spec, names.REQUESTS, selector, alert.window)
        for selector in (
            names.ROUTED,
            f"{names.ROUTED}, {names.SERVER_ERROR}",
            f'{NO_ROUTE}, {names.STATUS}!~"404|405"',
            f"{NO_ROUTE}, {names.SERVER_ERROR}",
        )
    )
    of_all = f"{names.REQUESTS_RECORD}{{{NOT_UNROUTED}}} or sum {by(*names.SERVICE)} ({unrouted})"
    label = {names.ROUTE: names.UNROUTED}
    return [
        record(names.REQUESTS_RECORD, f"sum {by(*names.ENDPOINT)} ({routed})"),
        record(names.REQUESTS_RECORD, f"sum {by(*names.SERVICE)} ({of_all})", **label),
        record(names.ERRORS_RECORD, f"sum {by(*names.ENDPOINT)} ({failed})"),
        record(names.ERRORS_RECORD, f"sum {by(*names.SERVICE)} ({lost})", **label),
        record(names.ERROR_RATIO_RECORD, f"{names.ERRORS_RECORD} / {names.REQUESTS_RECORD}"),
    ]


def requests(spec: Specification, metric: str, selector: str, window: float) -> str:
    """Requests in the window, of each series."""
    return names.counted(f"{metric}_count{{{selector}}}", window, spec.heard)


def p95(metric: str, selector: str, window: float) -> str:
    """The 95th percentile by endpoint, in seconds."""
    labels = ", ".join((*names.ENDPOINT, "le"))
    inner = f"increase({metric}_bucket{{{selector}}}[{duration(window)}])"
    return f"histogram_quantile(0.95, sum by ({labels}) ({inner}))"


def p95_of_journey(spec: Specification, place: int, alert: Alert) -> Rule:
    """The p95 of a journey's routes that no journey before it has; streams are left out."""
    journey, before = spec.journeys[place], spec.journeys[:place]
    selector = f'{names.ROUTED}, {names.ROUTE}=~"{journey.routes}"'
    if before:
        selector += f', {names.ROUTE}!~"{"|".join(item.routes for item in before)}"'
    expr = f"{p95(names.REQUESTS, selector, alert.window)} unless {names.STREAMED_RECORD}"
    return record(names.P95_RECORD, expr, journey=journey.id)


def errors_alert(spec: Specification, alert: Alert) -> Rule:
    """Share of 5xx per endpoint."""
    instructions = {
        "exemplars": exemplar_selector(names.REQUESTS, names.SERVER_ERROR),
        "tags": endpoint_tags(error="true"),
    }
    return alert_rule(
        spec,
        alert,
        _subject(),
        too_many_errors(alert, NOT_UNROUTED),
        threshold=f"{alert.threshold:.0%}",
        instructions=instructions,
    )


def unrouted_alert(spec: Specification, alert: Alert) -> Rule:
    """Share of requests that fail before they have a route. No search: it cannot ask for the want of one."""
    raw = f"{names.own()}, {NO_ROUTE}, {names.SERVER_ERROR}"
    return alert_rule(
        spec,
        alert,
        Subject(value("service_name"), names.UNROUTED, names.UNROUTED),
        too_many_errors(alert, f'{names.ROUTE}="{names.UNROUTED}"'),
        threshold=f"{alert.threshold:.0%}",
        instructions={"exemplars": f"{names.REQUESTS}_bucket{{{raw}}}"},
    )


def too_many_errors(alert: Alert, selector: str) -> str:
    """The share that pages, of not too few."""
    ratio = f"{names.ERROR_RATIO_RECORD}{{{selector}}} > {alert.threshold:g}"
    return f"{ratio} and {names.ERRORS_RECORD} >= {alert.at_least}"


def latency_alert(spec: Specification, journey: Journey, alert: Alert) -> Rule:
    """The p95 of a journey's endpoints."""
    enough = f"and ignoring (journey) {names.REQUESTS_RECORD} >= {alert.at_least}"
    expr = f'{names.P95_RECORD}{{journey="{journey.id}"}} > {journey.threshold:g} {enough}'
    instructions = {
        "exemplars": exemplar_selector(names.REQUESTS),
        "above": f"{journey.threshold:g}",
        "tags": endpoint_tags(),
        "min_seconds": f"{journey.threshold:g}",
    }
    own = {"journey": journey.id}
    return alert_rule(
        spec,
        alert,
        _subject(),
        expr,
        threshold=duration(journey.threshold),
        instructions=instructions,
        own_labels=own,
    )


def stream_alert(spec: Specification, alert: Alert) -> Rule:
    """The p95 of the time to a stream's first byte. No search: the longest stream may be a healthy one."""
    enough = f"and ignoring (journey) {names.STREAMED_RECORD} >= {alert.at_least}"
    expr = f"{names.FIRST_BYTE_RECORD} > {spec.stream_threshold:g} {enough}"
    instructions = {
        "exemplars": exemplar_selector(names.STREAMS),
        "above": f"{spec.stream_threshold:g}",
    }
    own = {"journey": "stream"}
    return alert_rule(
        spec,
        alert,
        Subject(value("service_name"), ENDPOINT),
        expr,
        threshold=duration(spec.stream_threshold),
        instructions=instructions,
        own_labels=own,
    )


def exemplar_selector(metric: str, also: str = "") -> str:
    """The raw series of an alert's endpoint: recorded ones have no exemplars."""
    own = names.own(names.METHOD, names.ROUTE)
    return f"{metric}_bucket{{{own}{', ' if also else ''}{also}}}"


def endpoint_tags(**more: str) -> str:
    """What a trace search looks for."""
    tags = {http.HTTP_REQUEST_METHOD: value(names.METHOD), http.HTTP_ROUTE: value(names.ROUTE)}
    return json.dumps(tags | more)
