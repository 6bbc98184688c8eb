"""The dashboard of calendars and queues: is what people see up to date, and does work pile up?"""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring import alerting as names
from monitoring.panels import (
    HERE,
    QUEUES_UID,
    Chart,
    base,
    chart,
    laid_out,
    metric,
    number,
    runbook,
    variable,
)
from monitoring.specification import Specification
from otel_shim import _semconv as semconv

QUEUE = f'{HERE}, {names.QUEUE_NAME}=~"$queue"'
CALENDAR = f'{HERE}, {names.PROVIDER}=~"$provider"'
NAMED = f"{{{{{names.QUEUE_NAME}}}}}"
PROVIDED = f"{{{{{names.PROVIDER}}}}}"
MODE = names.series(semconv.SAAS_CALENDAR_SYNC_MODE)
ITEM_STATE = names.series(semconv.SAAS_CALENDAR_ITEM_STATE)
ITEMS = names.series(semconv.METRIC_SAAS_CALENDAR_ITEMS, "_total")
TOKENS = names.series(semconv.METRIC_SAAS_CALENDAR_TOKEN_LOSSES, "_total")
CONFLICTS = names.series(semconv.METRIC_SAAS_CALENDAR_CONFLICTS, "_total")
CONFIRMED = names.series(semconv.METRIC_SAAS_CALENDAR_DELAY, "_seconds")


def board(spec: Specification) -> Dashboard:
    """Calendars above, queues below."""
    about = "How far calendars are behind, what synchronisations do, and what waits in queues for how long."
    made = base(QUEUES_UID, "Calendars and queues", about, spec, names.QUEUE_DEPTH)
    made = made.with_variable(
        variable("provider", names.PROVIDER, f"{names.CALENDARS}_count")
    ).with_variable(variable("queue", names.QUEUE_NAME, names.QUEUE_DEPTH))
    rows: list[tuple[int, Sequence[Chart]]] = [
        (4, figures(spec)),
        (8, [calendar_ages(spec), synchronisations()]),
        (8, [sync_durations(), calendar_items()]),
        (8, [calendar_troubles(), confirmations()]),
        (8, [depth(), oldest(spec)]),
        (8, [waits(), flows()]),
        (8, [saturation(spec), drain()]),
    ]
    return laid_out(made, rows)


def figures(spec: Specification) -> list[Chart]:
    """The worst of each."""
    return [
        number(
            "Oldest calendar",
            "Time since the last complete synchronisation of the calendar that waits longest. "
            + runbook(spec, "calendar.delay"),
            "s",
            f"max({names.CALENDAR_RECORD}{{{CALENDAR}}})",
        ),
        number(
            "Oldest item",
            "How long the oldest ready item waits. " + runbook(spec, "calendar.queue"),
            "s",
            f"max({names.QUEUE_AGE_RECORD}{{{QUEUE}}})",
        ),
        number("Waiting", "Items ready.", "none", f"sum({names.QUEUE_READY_RECORD}{{{QUEUE}}})"),
        number(
            "Workers", "Busy and idle.", "none", f"sum({names.QUEUE_WORKERS_RECORD}{{{QUEUE}}})"
        ),
    ]


def calendar_ages(spec: Specification) -> timeseries.Panel:
    """How far calendars are behind."""
    limit = names.duration(spec.alerts["calendar.delay"].limit)
    about = f"Of the calendar that waits longest; objective {limit}. " + runbook(
        spec, "calendar.delay"
    )
    expr = f"{names.CALENDAR_RECORD}{{{CALENDAR}}}"
    return chart("Since the last synchronisation", about, "s", [metric(expr, PROVIDED)])


def synchronisations() -> timeseries.Panel:
    """How they ended, and what kind they were."""
    by = f"{names.PROVIDER}, {MODE}, {names.SYNC_OUTCOME}"
    expr = f"sum by ({by}) (rate({names.CALENDARS}_count{{{CALENDAR}}}[$__rate_interval]))"
    legend = f"{PROVIDED} {{{{{MODE}}}}} {{{{{names.SYNC_OUTCOME}}}}}"
    about = "Synchronisations a second. Many full ones: tokens are lost."
    return chart("Synchronisations", about, "ops", [metric(expr, legend)])


def sync_durations() -> timeseries.Panel:
    """How long they take, with exemplars."""
    about = "p95; dots are synchronisations: they open the trace."
    return chart(
        "Duration of synchronisations", about, "s", [p95(names.CALENDARS, CALENDAR, names.PROVIDER)]
    )


def p95(histogram: str, selector: str, label: str) -> prometheus.Dataquery:
    """The 95th percentile by a label."""
    by = ", ".join(item for item in ("le", label) if item)
    buckets = f"rate({histogram}_bucket{{{selector}}}[$__rate_interval])"
    expr = f"histogram_quantile(0.95, sum by ({by}) ({buckets}))"
    return metric(expr, f"{{{{{label}}}}}" if label else "p95", exemplar=True)


def calendar_items() -> timeseries.Panel:
    """What became of items."""
    by = f"{names.PROVIDER}, {ITEM_STATE}"
    expr = f"sum by ({by}) (increase({ITEMS}{{{CALENDAR}}}[$__range]))"
    legend = f"{PROVIDED} {{{{{ITEM_STATE}}}}}"
    return chart("Items of calendars", "In the range shown.", "none", [metric(expr, legend)])


def calendar_troubles() -> timeseries.Panel:
    """What costs a full synchronisation, and what was refused."""
    queries = [
        metric(
            f"sum by ({names.PROVIDER}) (increase({name}{{{CALENDAR}}}[$__range])) or vector(0)",
            f"{what} {PROVIDED}",
        )
        for name, what in ((TOKENS, "token lost"), (CONFLICTS, "conflict"))
    ]
    about = "In the range shown: tokens the server no longer knew, and writes it refused because somebody else had written."
    return chart("Lost tokens and conflicts", about, "none", queries)


def confirmations() -> timeseries.Panel:
    """From a change to its confirmation."""
    about = "p95 of the time from a change in the product to its confirmation by the calendar."
    return chart("Change to confirmation", about, "s", [p95(CONFIRMED, HERE, "")])


def depth() -> timeseries.Panel:
    """What is in the queue, by state."""
    by = f"{names.QUEUE_NAME}, {names.QUEUE_STATE}"
    expr = f"max by ({by}) (last_over_time({names.QUEUE_DEPTH}{{{QUEUE}}}[$__rate_interval]))"
    about = "Items as the broker counts them. Dead ones failed too often: somebody has to look."
    return chart("Depth", about, "none", [metric(expr, f"{NAMED} {{{{{names.QUEUE_STATE}}}}}")])


def oldest(spec: Specification) -> timeseries.Panel:
    """How long the oldest item waits."""
    limit = names.duration(spec.alerts["calendar.queue"].limit)
    about = f"Read at the broker; objective {limit}. " + runbook(spec, "calendar.queue")
    expr = f"{names.QUEUE_AGE_RECORD}{{{QUEUE}}}"
    return chart("Age of the oldest item", about, "s", [metric(expr, NAMED)])


def waits() -> timeseries.Panel:
    """How long items waited, with exemplars."""
    about = "p95 of those that were taken; dots open the trace."
    return chart("Waited", about, "s", [p95(names.QUEUE_WAIT, QUEUE, names.QUEUE_NAME)])


def flows() -> timeseries.Panel:
    """What comes and goes."""
    queries = [
        metric(f"{names.QUEUE_ARRIVALS_RECORD}{{{QUEUE}}}", f"arrives {NAMED}"),
        metric(f"{names.QUEUE_COMPLETIONS_RECORD}{{{QUEUE}}}", f"done {NAMED}"),
    ]
    return chart("Arrivals and completions", "Items a second.", "ops", queries)


def saturation(spec: Specification) -> timeseries.Panel:
    """What share of the capacity arrives, and what share of workers is busy."""
    queries = [
        metric(f"{names.QUEUE_SATURATION_RECORD}{{{QUEUE}}}", f"saturation {NAMED}"),
        metric(f"{names.QUEUE_UTILISATION_RECORD}{{{QUEUE}}}", f"workers busy {NAMED}"),
    ]
    about = "Arrivals as a share of what the workers can do: above 100 % the queue grows. "
    return chart("Saturation", about + runbook(spec, "calendar.queue"), "percentunit", queries)


def drain() -> timeseries.Panel:
    """When nothing will wait."""
    expr = f"{names.QUEUE_DRAIN_RECORD}{{{QUEUE}}}"
    about = "At the present rates, until nothing waits; never, while more arrives than is done."
    return chart("Time to drain", about, "s", [metric(expr, NAMED)])
