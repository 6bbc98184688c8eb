"""Rules about jobs: failures, and what their heartbeats say from outside.

Heartbeats are read with `last_over_time` over days, so that they age on when the process is dead:
Prometheus itself forgets a series after five minutes, and OTLP does not mark its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from monitoring import alerting as names
from monitoring.alerting import (
    Rule,
    alert_rule,
    by,
    duration,
    last,
    of_service,
    over,
    record,
    value,
)
from monitoring.specification import Alert, Heartbeats, Objective, Specification
from otel_shim import _semconv as semconv

JOB = (*names.SERVICE, names.OPERATION)
PER_JOB = by(*JOB)
ANYBODYS_JOB = tuple(label for label in JOB if label != "service_name")
OPERATION = value(names.OPERATION)


def group(spec: Specification) -> list[Rule]:
    """Failures of jobs, and the alert on them."""
    alert = spec.alerts["audit.job.failure"]
    return [record(names.JOB_FAILURES_RECORD, new_failures(alert)), failure_alert(spec, alert)]


def new_failures(alert: Alert) -> str:
    """Failed executions in the window.

    A process that runs one job and ends leaves a series that begins at 1: `increase` sees nothing in
    it, so a series that is new in the window counts whole.
    """
    failed = f'{names.JOBS}_count{{{names.FAILED}, {names.OPERATION}=~"{alert.operations}"}}'
    return f"sum {PER_JOB} ({names.counted(failed, alert.window, alert.window)})"


def failure_alert(spec: Specification, alert: Alert) -> Rule:
    """Any failed execution."""
    selector = f"{names.own(names.OPERATION)}, {names.FAILED}"
    tags = {semconv.SAAS_OPERATION: OPERATION, "error": "true"}
    instructions = {"exemplars": f"{names.JOBS}_bucket{{{selector}}}", "tags": json.dumps(tags)}
    expr = f"{names.JOB_FAILURES_RECORD} > {alert.threshold:g}"
    return alert_rule(
        spec,
        alert,
        of_service(OPERATION),
        expr,
        threshold=f"{alert.threshold:g}",
        instructions=instructions,
    )


def heartbeat_group(spec: Specification) -> list[Rule]:
    """Jobs that do not start, do not end, do not succeed; recovery points and times."""
    return [
        *heartbeat_records(spec.heartbeats),
        record(names.RECOVERY_POINT_RECORD, recovery_point(spec.alerts["backup.rpo"])),
        record(names.RECOVERY_TIME_RECORD, recovery_time(spec)),
        *missed_alerts(spec),
        *late_alerts(spec),
        *objective_alerts(spec, spec.alerts["backup.rpo"], names.RECOVERY_POINT_RECORD),
        *objective_alerts(spec, spec.alerts["backup.rto"], names.RECOVERY_TIME_RECORD),
    ]


def heartbeat_records(beats: Heartbeats) -> list[Rule]:
    """What is known of each job; a job that never started, or never ended well, ages from its declaration."""
    started, succeeded = (
        f"max {PER_JOB} ({last(metric, '', beats.remembered)}) or {declared(beats)}"
        for metric in (names.JOB_START, names.JOB_SUCCESS)
    )
    return [
        record(names.JOB_PERIOD_RECORD, latest(names.JOB_PERIOD, beats)),
        record(
            names.JOB_MAX_RUNTIME_RECORD,
            f"{latest(names.JOB_MAX_RUNTIME, beats)} or {names.JOB_PERIOD_RECORD} * 0",
        ),
        record(names.JOB_CRITICAL_RECORD, critical(beats)),
        record(
            names.JOB_RUNNING_RECORD, f"sum {PER_JOB} ({last(names.JOB_ACTIVE, '', beats.live)})"
        ),
        record(names.JOB_START_RECORD, f"time() - ({started})"),
        record(names.JOB_SUCCESS_RECORD, f"time() - ({succeeded})"),
    ]


def declared(beats: Heartbeats) -> str:
    """When a job was first declared, by the service whose job it is.

    A web service that imports the module of a job declares it too. It is not its job where another
    service of the namespace has started it, and itself never has.
    """
    first = f"min {PER_JOB} ({over('min_over_time', names.JOB_DECLARED, '', beats.remembered)})"
    starts = last(names.JOB_START, "", beats.remembered)
    somebody = f"max {by(*ANYBODYS_JOB)} ({starts})"
    by_others = f"{first} unless on ({', '.join(ANYBODYS_JOB)}) {somebody}"
    return f"({by_others}) or ({first} and max {PER_JOB} ({starts}))"


def latest(metric: str, beats: Heartbeats, selector: str = "") -> str:
    """What living processes say; what dead ones said last where none lives."""
    living, dead = (last(metric, selector, window) for window in (beats.live, beats.remembered))
    return f"max {PER_JOB} ({living}) or max {PER_JOB} ({dead})"


def critical(beats: Heartbeats) -> str:
    """The periods of critical jobs; a living process that says otherwise counts, not a dead one."""
    said = f'{names.CRITICAL}="true"'
    living, dead = (last(names.JOB_PERIOD, said, w) for w in (beats.live, beats.remembered))
    anybody = last(names.JOB_PERIOD, "", beats.live)
    return f"max {PER_JOB} ({living}) or (max {PER_JOB} ({dead}) unless max {PER_JOB} ({anybody}))"


def recovery_point(alert: Alert) -> str:
    """The age of the last success of each operation that has an objective."""
    operations = "|".join(item.operation.replace(".", "[.]") for item in alert.objectives)
    return f'{names.JOB_SUCCESS_RECORD}{{{names.OPERATION}=~"{operations}"}}'


def recovery_time(spec: Specification) -> str:
    """How long the last successful drill took: that of the process with the latest success."""
    objectives = spec.alerts["backup.rto"].objectives
    operations = "|".join(item.operation.replace(".", "[.]") for item in objectives)
    selector, window = f'{names.OPERATION}=~"{operations}"', spec.heartbeats.remembered
    success = last(names.JOB_SUCCESS, selector, window)
    newest = f"{success} == on ({', '.join(JOB)}) group_left () max {PER_JOB} ({success})"
    took = last(names.JOB_TOOK, selector, window)
    return f"max {PER_JOB} ({took} and on ({', '.join((*JOB, 'instance'))}) ({newest}))"


def missed_alerts(spec: Specification) -> Iterator[Rule]:
    """Due, and not started."""
    alert = spec.alerts["job.missed"]
    late = f"{names.JOB_PERIOD_RECORD} + {seconds(tolerance(spec, alert))}"
    for expr, severity in by_severity(alert, f"{names.JOB_START_RECORD} > {late}"):
        threshold = f"the period and {duration(alert.grace)}"
        instructions = last_run(spec)
        yield alert_rule(
            spec,
            alert,
            of_service(OPERATION),
            expr,
            threshold=threshold,
            instructions=instructions,
            severity=severity,
        )


def late_alerts(spec: Specification) -> Iterator[Rule]:
    """Started, and longer at work than declared, or without a success for too long."""
    alert = spec.alerts["job.late"]
    overrun = (
        f"{names.JOB_START_RECORD} > ({names.JOB_MAX_RUNTIME_RECORD} > 0)"
        f" and {names.JOB_RUNNING_RECORD} > 0"
    )
    allowed = f"{names.JOB_PERIOD_RECORD} + {names.JOB_MAX_RUNTIME_RECORD}"
    stale = f"{names.JOB_SUCCESS_RECORD} > {allowed} + {seconds(tolerance(spec, alert))}"
    for reason, expr, threshold, instructions in (
        ("overrun", overrun, "the longest runtime", {"no_trace": alert.no_trace}),
        (
            "no_success",
            stale,
            f"the period, the longest runtime and {duration(alert.grace)}",
            last_run(spec),
        ),
    ):
        subject = of_service(OPERATION, reason)
        for split, severity in by_severity(alert, expr):
            yield alert_rule(
                spec,
                alert,
                subject,
                split,
                threshold=threshold,
                instructions=instructions,
                severity=severity,
            )


def tolerance(spec: Specification, alert: Alert) -> float:
    """What is left of the grace when the alert's own delay is taken off, in seconds."""
    return max(0.0, alert.grace - alert.lasting - spec.heartbeats.interval)


def by_severity(alert: Alert, expr: str) -> Iterator[tuple[str, str]]:
    """The expression for critical jobs, and for the others."""
    yield f"({expr}) and {names.JOB_CRITICAL_RECORD}", alert.severity
    yield f"({expr}) unless {names.JOB_CRITICAL_RECORD}", alert.otherwise


def last_run(spec: Specification) -> dict[str, str]:
    """The job's last run, however it ended, as far back as anything is remembered."""
    return {
        "exemplars": f"{names.JOBS}_bucket{{{names.own(names.OPERATION)}}}",
        "order": "newest",
        "tags": json.dumps({semconv.SAAS_OPERATION: OPERATION}),
        "window": f"{spec.heartbeats.remembered:g}",
    }


def objective_alerts(spec: Specification, alert: Alert, measured: str) -> Iterator[Rule]:
    """One alert for each objective."""
    for item in alert.objectives:
        expr = f'{measured}{{{names.OPERATION}="{item.operation}"}} > {seconds(allowed(item))}'
        yield alert_rule(
            spec,
            alert,
            of_service(item.operation),
            expr,
            threshold=duration(item.limit),
            instructions=last_run(spec),
        )


def allowed(objective: Objective) -> float:
    """Seconds until the alert."""
    return objective.limit + objective.grace


def seconds(number: float) -> str:
    """A number of seconds in an expression."""
    return f"{number:.10g}"
