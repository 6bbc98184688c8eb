"""The shipped configuration in the real Alertmanager: two environments, three channels, and what is held back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx

from examples.saas.demo import parts as demo
from examples.saas.demo.stack import Stack
from monitoring.simulation import parts, receivers
from monitoring.simulation.receivers import CHANNELS, Inbox

READY_SECONDS = 30.0
TOLD_SECONDS = 60.0
QUIET_SECONDS = 6.0
TRACES = {"production": "a" * 32, "staging": "b" * 32}


@contextmanager
def alertmanager(stack: Stack, out: Path) -> Iterator[tuple[Inbox, str]]:
    """It, alone, with receivers; yields what they take and where alerts are sent."""
    build = demo.ROOT / ".build"
    site = parts.choose_site(demo.Places(build / "bin", build, build, out))
    with receivers.receiving(site.ports.smtp) as (inbox, addresses):
        stack.start(parts.alertmanager(site, parts.write_alertmanager(site, addresses)))
        stack.wait_ready(READY_SECONDS)
        yield inbox, demo.url(site.ports.alertmanager, "/api/v2/alerts")


def alert(alert_id: str, environment: str, **labels: str) -> dict[str, Any]:
    """An alert as the relay passes it on."""
    now = datetime.now(timezone.utc)
    trace = TRACES[environment]
    given = {"severity": "critical", "service": "api", "endpoint": "GET /a", **labels}
    return {
        "labels": {
            "alertname": alert_id,
            "alert_id": alert_id,
            "service_namespace": "saas",
            "deployment_environment_name": environment,
            **given,
        },
        "annotations": {
            "trace_id": trace,
            "trace_url": f"https://traces.example/{trace}",
            "trace_source": "exemplars",
            "runbook_url": "https://runbooks.example",
            "dashboard_url": "https://grafana.example/d/x",
            "value": "50%",
            "threshold": "5%",
        },
        "startsAt": (now - timedelta(seconds=30)).isoformat(),
        "endsAt": (now + timedelta(seconds=300)).isoformat(),
    }


def ended(alert: dict[str, Any]) -> dict[str, Any]:
    """The same, over."""
    return {**alert, "endsAt": datetime.now(timezone.utc).isoformat()}


def send(url: str, *alerts: dict[str, Any]) -> None:
    """As the relay does."""
    assert httpx.post(url, json=alerts, trust_env=False).is_success


def told(inbox: Inbox, alert_id: str, status: str) -> set[tuple[str, str, str]]:
    """Channel, environment and trace of each message."""
    return {
        (channel, message.fields["environment"], message.fields["trace_id"])
        for channel in CHANNELS
        for message in inbox.of(alert_id, channel, status)
    }


def until(holds: Callable[[], bool], inbox: Inbox) -> None:
    """Poll."""
    deadline = time.monotonic() + TOLD_SECONDS
    while not holds():
        assert time.monotonic() < deadline, (inbox.messages, inbox.refused)
        time.sleep(0.1)


def everywhere(*environments: str) -> set[tuple[str, str, str]]:
    """What is told when each environment is on each channel, with its own trace."""
    return {(channel, each, TRACES[each]) for channel in CHANNELS for each in environments}


def test_each_environment_has_its_own_message(stack: Stack, tmp_path: Path) -> None:
    """Of one endpoint of one service: two incidents, each with its name, trace, links, value and threshold."""
    with alertmanager(stack, tmp_path) as (inbox, url):
        send(url, alert("api.5xx", "production"), alert("api.5xx", "staging"))
        until(lambda: len(inbox.messages) >= 2 * len(CHANNELS), inbox)
        assert told(inbox, "api.5xx", "firing") == everywhere("production", "staging")
    for message in inbox.messages:
        fields = message.fields
        assert (fields["namespace"], fields["threshold"]) == ("saas", "5%")
        assert fields["trace_url"] == f"https://traces.example/{fields['trace_id']}"
        for address in (fields["trace_url"], fields["dashboard"], fields["runbook"]):
            assert address in fields["links"]
        assert f"(api, {fields['environment']})" in message.raw
    keys = [m.fields["dedup_key"] for m in inbox.messages if m.channel == "pagerduty"]
    assert len(set(keys)) == 2
    assert not inbox.refused


def test_only_the_same_environment_holds_back(stack: Stack, tmp_path: Path) -> None:
    """A job that is missed in staging does not silence production; in production it does."""
    late = {"reason": "no_success", "endpoint": "backup.verify"}
    with alertmanager(stack, tmp_path) as (inbox, url):
        send(url, alert("job.missed", "staging", endpoint="backup.verify"))
        until(lambda: told(inbox, "job.missed", "firing") == everywhere("staging"), inbox)
        send(url, *(alert("job.late", each, **late) for each in ("production", "staging")))
        until(lambda: told(inbox, "job.late", "firing") == everywhere("production"), inbox)
        time.sleep(QUIET_SECONDS)
        assert told(inbox, "job.late", "firing") == everywhere("production")


def test_slowness_that_ends_with_errors_is_said_to_be_over(stack: Stack, tmp_path: Path) -> None:
    """An endpoint slows down, fails, and is well again: what was told is told to be over, on each channel."""
    slow = {"severity": "warning", "journey": "planning"}
    with alertmanager(stack, tmp_path) as (inbox, url):
        send(url, alert("api.latency", "production", **slow))
        until(lambda: told(inbox, "api.latency", "firing") == everywhere("production"), inbox)
        send(url, alert("api.5xx", "production"))
        until(lambda: told(inbox, "api.5xx", "firing") == everywhere("production"), inbox)
        # The slowness ends first: held back, it would stay open for ever (alertmanager#2754).
        send(url, ended(alert("api.latency", "production", **slow)))
        until(lambda: told(inbox, "api.latency", "resolved") == everywhere("production"), inbox)
