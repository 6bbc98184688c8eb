"""Rules about the way of alerts itself, read from what the relay serves on /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from monitoring import alerting as names
from monitoring.alerting import Rule, Subject, alert_rule, by, duration, over, value
from monitoring.specification import Alert, Specification

JOB = "alert-relay"
"""The scrape job of prometheus.yaml."""
SERVICE = "alerting"
# `absent` knows no instance.
INSTANCE = f'{{{{ or $labels.instance "{JOB}" }}}}'


def group(spec: Specification) -> list[Rule]:
    """A heartbeat, and what the relay says of itself."""
    return [
        watchdog(spec, spec.alerts["watchdog"]),
        down(spec, spec.alerts["relay.down"]),
        *undelivered(spec, spec.alerts["relay.delivery"]),
        lookups(spec, spec.alerts["relay.lookup"]),
    ]


def watchdog(spec: Specification, alert: Alert) -> Rule:
    """Fires always."""
    subject = Subject(SERVICE, "the way of alerts")
    return alert_rule(
        spec, alert, subject, "vector(1)", threshold="1", instructions=_traceless(alert)
    )


def down(spec: Specification, alert: Alert) -> Rule:
    """A relay that Prometheus cannot scrape, or none at all."""
    up = f'up{{job="{JOB}"}}'
    expr = f"{up} == 0 or absent({up})"
    return alert_rule(
        spec, alert, Subject(SERVICE, INSTANCE), expr, threshold="1", instructions=_traceless(alert)
    )


def undelivered(spec: Specification, alert: Alert) -> Iterator[Rule]:
    """Alerts that no Alertmanager took, and an Alertmanager that takes none."""
    lost = f"sum {by('instance')} ({over('increase', names.RELAY_LOST, '', alert.window)})"
    refusing = by("instance", "alertmanager")
    refused = f"sum {refusing} ({over('increase', names.RELAY_REFUSED, '', alert.window)})"
    for reason, expr, endpoint, severity in (
        ("lost", f"{lost} > 0", "any Alertmanager", alert.severity),
        (
            "refused",
            f"({refused} > 0) unless on (instance) ({lost} > 0)",
            value("alertmanager"),
            alert.otherwise,
        ),
    ):
        subject = Subject(SERVICE, endpoint, reason)
        yield alert_rule(
            spec,
            alert,
            subject,
            expr,
            threshold="0",
            instructions=_traceless(alert),
            severity=severity,
        )


def lookups(spec: Specification, alert: Alert) -> Rule:
    """A backend that does not answer the relay."""
    failed = over("increase", names.RELAY_LOOKUPS, "", alert.window)
    expr = f"sum {by('instance', 'backend')} ({failed}) >= {alert.at_least}"
    subject = Subject(SERVICE, value("backend"))
    threshold = f"{alert.at_least} in {duration(alert.window)}"
    return alert_rule(
        spec, alert, subject, expr, threshold=threshold, instructions=_traceless(alert)
    )


def _traceless(alert: Alert) -> dict[str, str]:
    return {"no_trace": alert.no_trace}
