"""Rules about jobs: failures, and what their heartbeats say from outside.

Heartbeats are read with `last_over_time` over days, so that they age on when the process is dead:
Prometheus itself forgets a series after five minutes, and OTLP does not mark its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

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
ON_JOB = f"on ({', '.join(JOB)})"
ON_PROCESS = f"on ({', '.join((*JOB, 'instance'))})"
ANYBODYS_JOB = tuple(label for label in JOB if label != "service_name")
OPERATION = value(names.OPERATION)


def group(spec: Specification) -> list[Rule]:
    """Failures of jobs, and the alert on them."""
    alert = spec.alerts["audit.job.failure"]
    return [
        record(names.JOB_FAILURES_RECORD, new_failures(alert, spec)),
        failure_alert(spec, alert),
    ]


def new_failures(alert: Alert, spec: Specification) -> str:
    """Failed executions in the window.

    A process that runs one job and ends leaves a series that begins at 1: `increase` sees nothing in
    it, so a series that is new in the window counts whole; one that was only cut off for a while does not.
    """
    failed = f'{names.JOBS}_count{{{names.FAILED}, {names.OPERATION}=~"{alert.operations}"}}'
    return f"sum {PER_JOB} ({names.counted(failed, alert.window, spec.heard)})"


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
        record(names.RECOVERY_POINT_RECORD, recovery_point(spec)),
        record(names.RECOVERY_TIME_RECORD, recovery_time(spec)),
        *missed_alerts(spec),
        *late_alerts(spec),
        *objective_alerts(spec, spec.alerts["backup.rpo"], names.RECOVERY_POINT_RECORD),
        *objective_alerts(spec, spec.alerts["backup.rto"], names.RECOVERY_TIME_RECORD),
    ]


def heartbeat_records(beats: Heartbeats) -> list[Rule]:
    """What is known of each job; a job that never started, or never ended well, ages from its declaration."""
    max_runtime = latest(names.JOB_MAX_RUNTIME, beats)
    runs = last(names.JOB_ACTIVE, "", beats.live)
    since = last(names.JOB_ACTIVE_SINCE, "", beats.live)
    return [
        record(names.JOB_PERIOD_RECORD, scheduled(beats)),
        record(names.JOB_MAX_RUNTIME_RECORD, f"{max_runtime} or {names.JOB_PERIOD_RECORD} * 0"),
        record(names.JOB_CRITICAL_RECORD, critical(beats)),
        record(names.JOB_RUNNING_RECORD, f"sum {PER_JOB} ({runs})"),
        record(names.JOB_RUNNING_AGE_RECORD, f"time() - min {PER_JOB} ({since} > 0)"),
        record(names.JOB_PROCESSES_RECORD, processes_at_work()),
        record(names.JOB_START_RECORD, age(names.JOB_START, beats)),
        record(names.JOB_SUCCESS_RECORD, age(names.JOB_SUCCESS, beats)),
    ]


def age(metric: str, beats: Heartbeats) -> str:
    """Time since a job last did something, or since its schedule was resumed, whichever is shorter.

    Only a process that has withdrawn the schedule resumes it: one in a crash loop declares it all the time.
    """
    did = f"max {PER_JOB} ({last(metric, '', beats.remembered)}) or {declared(beats)}"
    withdrawn = over("min_over_time", names.JOB_PERIOD, "", beats.remembered)
    said = last(names.JOB_DECLARED, "", beats.remembered)
    resumed = f"max {PER_JOB} ({said} and {ON_PROCESS} ({withdrawn} == 0))"
    return f"time() - ({resumed} > ({did}) or {did})"


def processes_at_work() -> str:
    """In how many processes a job is at work at once.

    The last word of one that was killed stays for minutes. It counts where it was said after the newest run began.
    """
    since = f"{names.JOB_ACTIVE_SINCE}{{}}"
    newest = f"timestamp({since}) >= {ON_JOB} group_left () max {PER_JOB} ({since})"
    return f"count {PER_JOB} ({newest} and {since} > 0)"


def declared(beats: Heartbeats, selector: str = "") -> str:
    """When a job was first declared, by the service whose job it is.

    A web service that imports the module of a job declares it too. It is not its job where another
    service of the namespace has started it, and itself never has.
    """
    first = (
        f"min {PER_JOB} ({over('min_over_time', names.JOB_DECLARED, selector, beats.remembered)})"
    )
    starts = last(names.JOB_START, selector, beats.remembered)
    somebody = f"max {by(*ANYBODYS_JOB)} ({starts})"
    by_others = f"{first} unless on ({', '.join(ANYBODYS_JOB)}) {somebody}"
    return f"({by_others}) or ({first} and max {PER_JOB} ({starts}))"


def latest(metric: str, beats: Heartbeats) -> str:
    """What living processes say; what dead ones said last where none lives."""
    living, dead = (last(metric, "", window) for window in (beats.live, beats.remembered))
    return f"max {PER_JOB} ({living}) or max {PER_JOB} ({dead})"


def scheduled(beats: Heartbeats) -> str:
    """The period of each job that has a schedule: as living processes say, else the newest of the dead.

    0 is said by a process whose scheduler took the schedule away: what others said before is over.
    """
    living = f"max {PER_JOB} ({last(names.JOB_PERIOD, '', beats.live)})"
    return f"({living} or {newest_period(beats)}) > 0"


def critical(beats: Heartbeats) -> str:
    """The periods of critical jobs; a living process that says otherwise counts, not a dead one."""
    said = f'{names.CRITICAL}="true"'
    living = last(names.JOB_PERIOD, said, beats.live)
    anybody = last(names.JOB_PERIOD, "", beats.live)
    dead = f"{newest_period(beats, said)} unless max {PER_JOB} ({anybody})"
    return f"max {PER_JOB} ({living}) or ({dead})"


def newest_period(beats: Heartbeats, selector: str = "") -> str:
    """What the process said that was the last to declare the job, or to withdraw that."""
    declarations = last(names.JOB_DECLARED, "", beats.remembered)
    return of_newest(last(names.JOB_PERIOD, selector, beats.remembered), declarations)


def of_newest(said: str, at: str) -> str:
    """What the process said whose time is the latest, dead or alive."""
    newest = f"{at} == {ON_JOB} group_left () max {PER_JOB} ({at})"
    return f"max {PER_JOB} ({said} and {ON_PROCESS} ({newest}))"


def recovery_point(spec: Specification) -> str:
    """How old what counts for each objective is: the data that was proved, or the last success."""
    objectives, beats = spec.alerts["backup.rpo"].objectives, spec.heartbeats
    kinds = {"recovery_point": proved, "success": succeeded}
    chosen = {kind: of_operations(item for item in objectives if item.of == kind) for kind in kinds}
    either = " or ".join(f"({at(beats, chosen[kind])})" for kind, at in kinds.items())
    return f"time() - ({either})"


def proved(beats: Heartbeats, selector: str) -> str:
    """The time of the data that the last success proved.

    Where it did not say, nobody knows: that ages from the first declaration, or else from the first success.
    """
    success = last(names.JOB_SUCCESS, selector, beats.remembered)
    point = of_newest(last(names.JOB_RECOVERY_POINT, selector, beats.remembered), success)
    first = over("min_over_time", names.JOB_SUCCESS, selector, beats.remembered)
    return f"{point} or {declared(beats, selector)} or min {PER_JOB} ({first})"


def succeeded(beats: Heartbeats, selector: str) -> str:
    """When a job last ended well; pausing it makes that no younger."""
    success = last(names.JOB_SUCCESS, selector, beats.remembered)
    return f"max {PER_JOB} ({success}) or {declared(beats, selector)}"


def recovery_time(spec: Specification) -> str:
    """How long the last successful drill took: that of the process with the latest success."""
    selector = of_operations(spec.alerts["backup.rto"].objectives)
    took, success = (
        last(metric, selector, spec.heartbeats.remembered)
        for metric in (names.JOB_TOOK, names.JOB_SUCCESS)
    )
    return of_newest(took, success)


def of_operations(objectives: Iterable[Objective]) -> str:
    """A selector for the operations of objectives."""
    operations = "|".join(item.operation.replace(".", "[.]") for item in objectives)
    return f'{names.OPERATION}=~"{operations}"'


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
    """Longer at work than declared, without a success for too long, or at work in two processes."""
    alert = spec.alerts["job.late"]
    for reason, expr, threshold in (
        ("overrun", overrun(), "the longest runtime"),
        (
            "no_success",
            stale(spec, alert),
            f"the period, the longest runtime and {duration(alert.grace)}",
        ),
    ):
        for split, severity in by_severity(alert, expr):
            yield late_alert(spec, reason, split, threshold, severity)
    yield late_alert(spec, "overlap", overlap(), "1 process", alert.otherwise)


def late_alert(spec: Specification, reason: str, expr: str, threshold: str, severity: str) -> Rule:
    """Of one reason; what is at work has no trace yet."""
    alert = spec.alerts["job.late"]
    ended = reason == "no_success"
    return alert_rule(
        spec,
        alert,
        of_service(OPERATION, reason),
        expr,
        threshold=threshold,
        instructions=last_run(spec) if ended else {"no_trace": alert.no_trace},
        severity=severity,
    )


def overrun() -> str:
    """The run that is longest at work, whatever started since."""
    return f"{names.JOB_RUNNING_AGE_RECORD} > ({names.JOB_MAX_RUNTIME_RECORD} > 0)"


def stale(spec: Specification, alert: Alert) -> str:
    """It starts and does not end well."""
    allowed = f"{names.JOB_PERIOD_RECORD} + {names.JOB_MAX_RUNTIME_RECORD}"
    return f"{names.JOB_SUCCESS_RECORD} > {allowed} + {seconds(tolerance(spec, alert))}"


def overlap() -> str:
    """Of a job with a schedule: messages of a queue are worked on by many at once."""
    return f"{names.JOB_PROCESSES_RECORD} > 1 and {names.JOB_PERIOD_RECORD}"


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
            of_service(item.operation, item.of),
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
