"""The dashboard of jobs: do they run when they should, do they end well, could we restore?"""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring import alerting as names
from monitoring.panels import (
    HERE,
    JOBS_UID,
    Chart,
    base,
    chart,
    jobs,
    laid_out,
    metric,
    number,
    runbook,
    variable,
)
from monitoring.specification import Specification
from otel_shim import _semconv as semconv

SELECTED = f'{HERE}, service_name=~"$service", {names.OPERATION}=~"$operation"'
NAMED = f"{{{{{names.OPERATION}}}}}"
START_DELAY = names.series(semconv.METRIC_SAAS_JOB_START_DELAY, "_seconds")
ITEMS = names.series(semconv.METRIC_SAAS_JOB_ITEMS, "_total")
ITEM_STATE = names.series(semconv.SAAS_JOB_ITEM_STATE)
BACKLOG = names.series(semconv.METRIC_SAAS_JOB_BACKLOG)
OVERRUNS = names.series(semconv.METRIC_SAAS_JOB_OVERRUNS, "_total")
UNSTARTED = names.series(semconv.METRIC_SAAS_JOB_UNSTARTED, "_total")
OVERLAPS = names.series(semconv.METRIC_SAAS_JOB_OVERLAPS, "_total")


def board(spec: Specification) -> Dashboard:
    """Heartbeats first: what does not run shows nowhere else."""
    about = "Whether jobs start when they are due and end well, judged from outside: the figures age on when a process is dead."
    made = base(JOBS_UID, "Jobs", about, spec, names.JOB_START)
    made = made.with_variable(variable("service", "service_name", names.JOB_START))
    made = made.with_variable(variable("operation", names.OPERATION, names.JOB_START))
    rows: list[tuple[int, Sequence[Chart]]] = [
        (4, figures(spec)),
        (8, [periods(spec), successes(spec)]),
        (8, [jobs(spec), durations(spec)]),
        (8, [delays(), troubles(spec)]),
        (8, [items(), backlog()]),
    ]
    return laid_out(made, rows)


def figures(spec: Specification) -> list[Chart]:
    """Is anything due, and how much would be lost?"""
    alerts = 'ALERTS{alertstate="firing", alert_id=~"job[.].*|audit[.]job[.].*"}'
    rpo, rto = (spec.alerts[name].objectives[0] for name in ("backup.rpo", "backup.rto"))
    point = f'{names.RECOVERY_POINT_RECORD}{{{HERE}, {names.OPERATION}="{rpo.operation}"}}'
    about = (
        f"Age of the data in the newest verified backup; objective {names.duration(rpo.limit)}. "
        + runbook(spec, "backup.rpo"),
        f"How long the last restore drill took; objective {names.duration(rto.limit)}. "
        + runbook(spec, "backup.rto"),
    )
    running = f"sum({names.JOB_RUNNING_RECORD}{{{SELECTED}}})"
    return [
        number(
            "Alerts", "Alerts about jobs that fire now.", "none", f"count({alerts}) or vector(0)"
        ),
        number("Recovery point", about[0], "s", f"max({point})"),
        number("Recovery time", about[1], "s", f"max({names.RECOVERY_TIME_RECORD}{{{HERE}}})"),
        number("At work", "Runs that are at work.", "none", running),
    ]


def periods(spec: Specification) -> timeseries.Panel:
    """The age of the last start as a multiple of the period."""
    by = f"on ({', '.join((*names.SERVICE, names.OPERATION))})"
    expr = f"{names.JOB_START_RECORD}{{{SELECTED}}} / {by} {names.JOB_PERIOD_RECORD}"
    about = "Time since the last start, in periods: above 1 it is overdue. " + runbook(
        spec, "job.missed"
    )
    return chart("Overdue", about, "none", [metric(expr, NAMED)])


def successes(spec: Specification) -> timeseries.Panel:
    """The age of the last success."""
    expr = f"{names.JOB_SUCCESS_RECORD}{{{SELECTED}}}"
    about = "Time since the last run that ended well. " + runbook(spec, "job.late")
    return chart("Since the last success", about, "s", [metric(expr, NAMED)])


def durations(spec: Specification) -> timeseries.Panel:
    """How long runs take, with exemplars."""
    about = "p95; dots are runs: they open the trace. " + runbook(spec, "job.late")
    return chart("Durations", about, "s", [p95(names.JOBS)])


def delays() -> timeseries.Panel:
    """How late runs start."""
    about = "p95 of the time from when a run was due to its start."
    return chart("Start delay", about, "s", [p95(START_DELAY)])


def p95(histogram: str) -> prometheus.Dataquery:
    """The 95th percentile by operation."""
    buckets = f"rate({histogram}_bucket{{{SELECTED}}}[$__rate_interval])"
    expr = f"histogram_quantile(0.95, sum by (le, {names.OPERATION}) ({buckets}))"
    return metric(expr, NAMED, exemplar=True)


def troubles(spec: Specification) -> timeseries.Panel:
    """Runs that took too long, and runs that met."""
    queries = [
        metric(
            f"sum by ({names.OPERATION}) (increase({name}{{{SELECTED}}}[$__range])) or vector(0)",
            f"{what} {NAMED}",
        )
        for name, what in ((OVERRUNS, "overrun"), (OVERLAPS, "overlap"), (UNSTARTED, "not started"))
    ]
    about = "In the range shown: runs that took longer than declared, and runs that started while one was at work, and runs that were due and not started. "
    return chart("Overruns, overlaps, left out", about + runbook(spec, "job.late"), "none", queries)


def items() -> timeseries.Panel:
    """What became of items."""
    by = f"{names.OPERATION}, {ITEM_STATE}"
    expr = f"sum by ({by}) (increase({ITEMS}{{{SELECTED}}}[$__range]))"
    about = "In the range shown. What was read is what was written, rejected and filtered."
    return chart("Items", about, "none", [metric(expr, f"{NAMED} {{{{{ITEM_STATE}}}}}")])


def backlog() -> timeseries.Panel:
    """What waits for jobs."""
    expr = f"max by ({names.OPERATION}) (last_over_time({BACKLOG}{{{SELECTED}}}[$__range]))"
    about = "Items that waited when the last run ended."
    return chart("Backlog", about, "none", [metric(expr, NAMED)])
