"""Rules about queues and calendars.

A queue is the broker's: every process that reads it reports the same, so that readings are not added up,
and a queue belongs to no service but to a namespace. Workers are each process's own: they add up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from monitoring import alerting as names
from monitoring.alerting import Rule, Subject, alert_rule, by, duration, label, last, over, record
from monitoring.specification import Alert, Specification
from otel_shim import _semconv as semconv

QUEUE = (names.SERVICE[0], names.SERVICE[2], names.QUEUE_NAME)
PER_QUEUE = by(*QUEUE)
NAMED = names.value(names.QUEUE_NAME)
NAMESPACE = names.value("service_namespace")
# A queue's namespace, or its name where the apps have none: a message needs a service.
SERVICE = f"{{{{ if $labels.service_namespace }}}}{NAMESPACE}{{{{ else }}}}{NAMED}{{{{ end }}}}"
CALENDAR = (*names.SERVICE, names.PROVIDER)
SYNCHRONIZE = semconv.OPERATION_CALENDAR_SYNCHRONIZE


def group(spec: Specification) -> list[Rule]:
    """What is read of queues, and the alerts on those of calendars."""
    alert = spec.alerts["calendar.queue"]
    return [*readings(spec, alert), *flows(alert), *queue_alerts(spec, alert)]


def readings(spec: Specification, alert: Alert) -> list[Rule]:
    """What the broker says now, and the workers of all processes.

    Processes that have died take their workers with them: where some were known, none are left.
    """
    live, remembered = spec.heartbeats.live, spec.heartbeats.remembered
    workers = f"sum {PER_QUEUE} ({last(names.QUEUE_WORKERS, '', live)})"
    known = f"sum {PER_QUEUE} ({last(names.QUEUE_WORKERS, '', remembered)})"
    busy, all_of = (
        f"sum {PER_QUEUE} ({over('avg_over_time', names.QUEUE_WORKERS, state, alert.window)})"
        for state in (names.BUSY, "")
    )
    ready = f"max {PER_QUEUE} ({last(names.QUEUE_DEPTH, names.READY, live)})"
    return [
        record(names.QUEUE_READY_RECORD, ready),
        record(names.QUEUE_AGE_RECORD, f"max {PER_QUEUE} ({last(names.QUEUE_AGE, '', live)})"),
        record(names.QUEUE_WORKERS_RECORD, f"{workers} or {known} * 0"),
        record(names.QUEUE_UTILISATION_RECORD, f"{busy} / ({all_of} > 0)"),
    ]


def flows(alert: Alert) -> list[Rule]:
    """What comes and goes, what of its capacity that is, and how long until nothing waits.

    Capacity is what was done divided by the share of time that workers were busy; where workers are not
    known, what was done. A queue that does not shrink drains in +Inf seconds.
    """
    arrivals, done, ready = (
        names.QUEUE_ARRIVALS_RECORD,
        names.QUEUE_COMPLETIONS_RECORD,
        names.QUEUE_READY_RECORD,
    )
    rates = {
        metric: f"sum {PER_QUEUE} ({over('rate', metric, '', alert.window)})"
        for metric in (names.QUEUE_ARRIVALS, names.QUEUE_COMPLETIONS)
    }
    utilised = f"({names.QUEUE_UTILISATION_RECORD} or {arrivals} * 0 + 1)"
    return [
        record(arrivals, rates[names.QUEUE_ARRIVALS]),
        record(done, f"{rates[names.QUEUE_COMPLETIONS]} or {arrivals} * 0"),
        record(names.QUEUE_SATURATION_RECORD, f"{arrivals} / {done} * {utilised}"),
        record(
            names.QUEUE_DRAIN_RECORD,
            f"({ready} > 0) / clamp_min({done} - {arrivals}, 0) or {ready} == 0",
        ),
    ]


def queue_alerts(spec: Specification, alert: Alert) -> Iterator[Rule]:
    """One rule for each sign of a queue that does not keep up."""
    for reason, expr, threshold, severity in conditions(spec, alert):
        subject = Subject(SERVICE, NAMED, reason)
        instructions = {
            "exemplars": f"{names.QUEUE_WAIT}_bucket{{{', '.join(map(label, QUEUE))}}}",
            "order": "newest",
            "window": f"{spec.heartbeats.remembered:g}",
        }
        yield alert_rule(
            spec,
            alert,
            subject,
            expr,
            threshold=threshold,
            instructions=instructions,
            severity=severity,
        )


def conditions(spec: Specification, alert: Alert) -> Iterator[tuple[str, str, str, str]]:
    """Reason, expression, threshold and severity."""
    chosen = f'{names.QUEUE_NAME}=~"{alert.queues}"'
    ready = f"{names.QUEUE_READY_RECORD}{{{chosen}}}"
    known = last(names.QUEUE_DEPTH, f"{names.READY}, {chosen}", spec.heartbeats.remembered)
    yield (
        "waiting",
        f"{names.QUEUE_AGE_RECORD}{{{chosen}}} > {alert.limit:.10g}",
        duration(alert.limit),
        alert.severity,
    )
    yield (
        "no_worker",
        f"{ready} > 0 and {names.QUEUE_WORKERS_RECORD} == 0",
        "1 worker",
        alert.severity,
    )
    yield (
        "saturated",
        f"{names.QUEUE_SATURATION_RECORD}{{{chosen}}} > 1 and {ready} >= {alert.at_least}",
        "100%",
        alert.otherwise,
    )
    yield (
        "unseen",
        f"max {PER_QUEUE} ({known}) unless {names.QUEUE_READY_RECORD}",
        duration(spec.heartbeats.live),
        alert.otherwise,
    )


def calendar_group(spec: Specification) -> list[Rule]:
    """The calendar that waits longest, by provider.

    Processes that take turns with a calendar each know a part of its synchronisations: of a group of
    calendars what the best informed of them knows, then the group that waits longest. 0 is a group
    that has no calendar any more.
    """
    per_provider = by(*CALENDAR)
    oldest = f"min {per_provider} (({group_successes(spec)}) > 0)"
    return [
        record(names.CALENDAR_RECORD, f"time() - {oldest}"),
        calendar_alert(spec, spec.alerts["calendar.delay"]),
    ]


def group_successes(spec: Specification) -> str:
    """Of each group what living processes say, else dead ones: nobody has taken its calendars over yet.

    While other groups are synchronised, one that nobody tries is forgotten after a time: its calendars
    may be none of the product's any more.
    """
    beats, per_group = spec.heartbeats, by(*CALENDAR, names.BUCKET)
    living, recent, dead = (
        f"max {per_group} ({last(names.CALENDAR_SUCCESS, '', window)})"
        for window in (beats.live, beats.forgotten, beats.remembered)
    )
    return f"{living} or {recent} or ({dead} unless on ({', '.join(CALENDAR)}) {living})"


def calendar_alert(spec: Specification, alert: Alert) -> Rule:
    """Too long without a complete synchronisation."""
    provider = names.value(names.PROVIDER)
    failed = f'{names.SYNC_OUTCOME}="{semconv.SAAS_CALENDAR_SYNC_OUTCOME_FAILURE}"'
    own = f"{names.own(names.PROVIDER)}, {failed}"
    tags = {
        semconv.SAAS_OPERATION: SYNCHRONIZE,
        semconv.SAAS_CALENDAR_PROVIDER: provider,
        "error": "true",
    }
    instructions = {
        "exemplars": f"{names.CALENDARS}_bucket{{{own}}}",
        "order": "newest",
        "tags": json.dumps(tags),
    }
    subject = names.of_service(f"{SYNCHRONIZE} {provider}")
    expr = f"{names.CALENDAR_RECORD} > {alert.limit:.10g}"
    return alert_rule(
        spec, alert, subject, expr, threshold=duration(alert.limit), instructions=instructions
    )
