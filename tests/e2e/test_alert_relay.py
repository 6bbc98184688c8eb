"""The alert relay as a program: killed and restarted, and under load while its backends are silent."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo import parts as demo
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Stack, kill
from monitoring import load
from monitoring.simulation import parts, receivers
from otel_shim import _semconv as semconv

from . import collectors, server

TRACE = "0af7651916cd43dd8448eb211c80319c"
READY_SECONDS = 30.0
LONG_SECONDS = 120.0
RESENDS = 60
EXEMPLAR = json.dumps(
    {
        "status": "success",
        "data": [
            {
                "seriesLabels": {},
                "exemplars": [
                    {
                        "labels": {"trace_id": TRACE, "request_id": "req-1"},
                        "value": "0.4",
                        "timestamp": 1,
                    }
                ],
            }
        ],
    }
).encode()
"""A Prometheus's answer with one exemplar."""


async def started(stack: Stack, part: Part) -> None:
    """Start the relay and wait until it serves; what this process serves goes on meanwhile."""
    stack.start(part)
    await asyncio.to_thread(stack.wait_ready, READY_SECONDS)


async def get(port: int, path: str) -> httpx.Response:
    """Ask the relay."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def post(port: int, *batch: Any) -> int:
    """Send as Prometheus does; the status."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return (await client.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=batch)).status_code


def told_of(manager: load.Alertmanager) -> Any:
    """The annotations that came last."""
    return manager.alerts[-1]["annotations"]


@pytest.mark.parametrize("state", ["kept", "missing", "corrupt"])
async def test_ids_outlive_the_process(stack: Stack, tmp_path: Path, state: str) -> None:
    """Killed at once after an alert fired: the resolved message names its trace, or says why not."""
    manager = load.Alertmanager()
    file = tmp_path / "state.sqlite"
    fired = load.alert(1)
    with collectors.listening(collectors.answering("200 OK", EXEMPLAR)) as source:
        async with load.listening(manager.talk) as url:
            port = free_ports(1)[0]
            part = load.relay_part(port, file, (url,), "--prometheus", source.url)
            await started(stack, part)
            for _ in range(RESENDS):  # as Prometheus does, until a look-up was fast enough
                assert await post(port, fired) == 200
                if told_of(manager)["trace_id"] == TRACE:
                    break
            assert told_of(manager)["trace_id"] == TRACE
            kill(stack.running.pop())
            if state != "kept":
                for each in tmp_path.glob("state.sqlite*"):
                    each.unlink()
            if state == "corrupt":
                file.write_bytes(b"no database, and long enough to be looked at" * 100)
            await started(stack, part)
            resolved = {**fired, "endsAt": load.alert(1, timedelta(seconds=0))["endsAt"]}
            assert await post(port, resolved) == 200
            health = (await get(port, "/health")).json()
    said = told_of(manager)
    if state == "kept":
        assert (said["trace_id"], said["request_id"]) == (TRACE, "req-1")
    else:
        assert said["trace_id"].startswith("none: the relay has no record")
    assert (health["memory"] == "on disk") == (state != "corrupt")


async def test_an_alert_goes_on_while_everything_else_hangs(stack: Stack, tmp_path: Path) -> None:
    """Prometheus and Jaeger are silent, the state is locked: it is there before two seconds have passed.

    With a third of a second for look-ups, so that a slow machine has time to spare.
    """
    manager, file = load.Alertmanager(), tmp_path / "state.sqlite"
    async with load.listening(load.silent) as dead, load.listening(manager.talk) as url:
        port = free_ports(1)[0]
        more = ("--prometheus", dead, "--traces", dead, "--budget", "0.33")
        await started(stack, load.relay_part(port, file, (url,), *more))
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(4):  # more than it takes until the backends rest
                began = time.monotonic()
                assert await post(port, load.alert(number)) == 200
                assert time.monotonic() - began < load.LATEST_SECONDS
                assert told_of(manager)["trace_id"].startswith("none: exemplars")
    assert set(manager.came) == {"0", "1", "2", "3"}


async def test_a_slow_answer_follows_the_alert(stack: Stack, tmp_path: Path) -> None:
    """Prometheus sends it once and the answer takes too long: the alert goes on at once, and again with its ids."""
    manager, fired = load.Alertmanager(), load.alert(1)
    slow = collectors.answering("200 OK", EXEMPLAR, after=2.0)
    with collectors.listening(slow) as source:
        async with load.listening(manager.talk) as url:
            port = free_ports(1)[0]
            part = load.relay_part(port, tmp_path / "s", (url,), "--prometheus", source.url)
            await started(stack, part)
            assert await post(port, fired) == 200
            assert told_of(manager)["trace_id"] == "none: exemplars: no answer within 1.2 s"
            deadline = time.monotonic() + READY_SECONDS
            while len(manager.alerts) < 2:
                assert time.monotonic() < deadline, "the second look finds it"
                await asyncio.sleep(0.1)
    assert told_of(manager)["trace_id"] == TRACE
    said = [{**alert, "annotations": {}} for alert in (fired, *manager.alerts)]
    assert said[0] == said[1] == said[2]


async def test_a_trace_is_found_in_jaeger(
    stack: Stack, tmp_path: Path, backend: server.Backend
) -> None:
    """The failed request among those of a route with quotes in it, and not those of another one."""
    route, service = '/say/{word:"a"}', f"relay-{tmp_path.name}"
    sent = [
        otlp_span("a" * 32, "req-fine", route, 0.01, failed=False),
        otlp_span("b" * 32, "req-wrong", route, 0.9, failed=True),
        otlp_span("c" * 32, "req-other", "/other", 2.0, failed=True),
    ]
    body = {"resourceSpans": [{"resource": named(service), "scopeSpans": [{"spans": sent}]}]}
    httpx.post(f"{backend.otlp}/v1/traces", json=body, timeout=30).raise_for_status()
    tags = {"http.route": route, "http.request.method": "GET", "error": "true"}
    fired = load.alert(1)
    fired["annotations"] = {"relay_service": service, "relay_tags": json.dumps(tags)}
    slow = load.alert(2)
    slow["annotations"] = {"relay_service": service, "relay_min_seconds": "1.5"}
    manager = load.Alertmanager()
    async with load.listening(manager.talk) as url:
        port = free_ports(1)[0]
        more = ("--traces", backend.jaeger.url)
        await started(stack, load.relay_part(port, tmp_path / "s", (url,), *more))
        for _ in range(RESENDS):
            assert await post(port, fired, slow) == 200
            said = [alert["annotations"] for alert in manager.alerts[-2:]]
            if all(each["trace_id"][:4] != "none" for each in said):
                break
            await asyncio.sleep(1)
    print(said)
    found = [(each["trace_id"], each["request_id"], each["trace_source"]) for each in said]
    assert found == [("b" * 32, "req-wrong", "jaeger"), ("c" * 32, "req-other", "jaeger")]
    assert said[0]["trace_url"] == f"{backend.jaeger.url}/trace/{'b' * 32}"
    assert "more_trace_ids" not in said[0]


def otlp_span(trace: str, request: str, route: str, seconds: float, *, failed: bool) -> Any:
    """A server span that ended just now."""
    now = time.time()
    given = {"http.route": route, "http.request.method": "GET", semconv.SAAS_REQUEST_ID: request}
    return {
        "traceId": trace,
        "spanId": trace[:16],
        "name": f"GET {route}",
        "kind": 2,
        "startTimeUnixNano": str(int((now - seconds) * 1e9)),
        "endTimeUnixNano": str(int(now * 1e9)),
        "attributes": texts(given),
        "status": {"code": 2} if failed else {},
    }


def texts(given: Mapping[str, str]) -> list[Any]:
    """Attributes in OTLP's JSON."""
    return [{"key": key, "value": {"stringValue": value}} for key, value in given.items()]


def named(service: str) -> Any:
    """A resource."""
    return {"attributes": texts({"service.name": service})}


async def test_no_alert_is_lost_while_backends_are_silent(stack: Stack) -> None:
    """Every alert reaches both Alertmanagers, labels unchanged, with the reason why it has no ids."""
    managers = [load.Alertmanager(), load.Alertmanager()]
    async with (
        load.listening(load.silent) as dead,
        load.listening(managers[0].talk) as one,
        load.listening(managers[1].talk) as two,
    ):
        port = free_ports(1)[0]
        more = ("--prometheus", dead, "--traces", dead)
        await started(stack, load.relay_part(port, stack.out / "state.sqlite", (one, two), *more))
        sent = await load.send(f"http://127.0.0.1:{port}", 3)
        assert (sent.refused, sent.unsent) == (0, 0)
        metrics = (await get(port, "/metrics")).text
        await asyncio.to_thread(stack.stop)
    for manager in managers:
        assert set(manager.came) == set(sent.alerts)
        for came in manager.alerts:
            assert came["labels"] == {"alertname": "Load", "number": came["labels"]["number"]}
            assert came["annotations"]["trace_id"].startswith("none: ")
    assert f"otel_shim_relay_alerts_received_total {len(sent.alerts)}" in metrics
    assert load.failures(metrics)


def test_a_message_without_a_trace_is_a_message(stack: Stack, tmp_path: Path) -> None:
    """All three channels take it, with the reason in place of the ids."""
    build = demo.ROOT / ".build"
    places = demo.Places(build / "bin", build, build, tmp_path)
    site = parts.choose_site(places)
    reason = "none: a gauge has no trace"
    given = {"trace_id": reason, "request_id": reason, "runbook_url": "https://r", "value": "1"}
    labels = {"alertname": "A", "alert_id": "a.b", "severity": "critical", "service": "api"}
    with receivers.receiving(site.ports.smtp) as (inbox, addresses):
        stack.start(parts.alertmanager(site, parts.write_alertmanager(site, addresses)))
        stack.wait_ready(READY_SECONDS)
        alert = {"labels": {**labels, "endpoint": "GET /a: b"}, "annotations": given}
        url = demo.url(site.ports.alertmanager, "/api/v2/alerts")
        assert httpx.post(url, json=[alert], trust_env=False).is_success
        deadline = time.monotonic() + READY_SECONDS
        while len(inbox.messages) < len(receivers.CHANNELS):
            assert time.monotonic() < deadline, inbox.refused
            time.sleep(0.1)
    assert {message.channel for message in inbox.messages} == set(receivers.CHANNELS)
    said = {(m.fields["trace_id"], m.fields["endpoint"]) for m in inbox.messages}
    # PagerDuty's details are YAML to Alertmanager, which would make maps of these.
    assert said == {
        (reason, "GET /a: b"),
        ("none - a gauge has no trace", "GET /a - b"),
    }
    assert not inbox.refused


def test_the_way_of_alerts_watches_itself(stack: Stack, tmp_path: Path) -> None:
    """An Alertmanager that is not there is told of through the one that is; with the relay the heartbeat dies."""
    build = demo.ROOT / ".build"
    site = parts.choose_site(demo.Places(build / "bin", build, build, tmp_path))
    (gone,) = free_ports(1)
    relay = parts.relay(site)
    relay = replace(relay, argv=(*relay.argv, "--alertmanager", demo.url(gone)))
    with receivers.receiving(site.ports.smtp) as (inbox, addresses):
        stack.start(parts.alertmanager(site, parts.write_alertmanager(site, addresses)))
        running = stack.start(relay)
        stack.start(parts.prometheus(site, parts.write_prometheus(site)))
        stack.wait_ready(READY_SECONDS)
        until(lambda: len(inbox.heartbeats) > 1, "the heartbeat comes")
        until(lambda: told(inbox, demo.url(gone)) == set(receivers.CHANNELS), "the refusal is told")
        kill(running)
        stack.running.remove(running)
        until(lambda: not watchdog(site), "the heartbeat has ended")
        before = len(inbox.heartbeats)
        stack.start(relay)
        until(lambda: len(inbox.heartbeats) > before, "the heartbeat is back")
    assert not inbox.refused


def told(inbox: receivers.Inbox, endpoint: str) -> set[str]:
    """The channels that said that an Alertmanager takes nothing."""
    said = [message for message in inbox.messages if message.alert_id == "relay.delivery"]
    return {m.channel for m in said if endpoint in m.raw and m.fields["severity"] == "warning"}


def watchdog(site: parts.Site) -> Any:
    """What Alertmanager knows of the heartbeat."""
    url = demo.url(site.ports.alertmanager, "/api/v2/alerts")
    return httpx.get(url, params={"filter": 'alertname="Watchdog"'}, trust_env=False).json()


def until(holds: Callable[[], bool], what: str) -> None:
    """Poll."""
    deadline = time.monotonic() + LONG_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {LONG_SECONDS:.0f} s: {what}"
        time.sleep(0.2)


async def test_prometheus_is_told_when_no_alertmanager_is_there(stack: Stack) -> None:
    """So that it sends the alert again; once one is back, it gets it."""
    port, gone = free_ports(2)
    await started(stack, load.relay_part(port, stack.out / "s", (f"http://127.0.0.1:{gone}",)))
    assert await post(port, load.alert(1)) == 502
