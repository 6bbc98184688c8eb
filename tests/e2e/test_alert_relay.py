"""The alert relay as a program: killed and restarted, and under load while its backends are silent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo import parts as demo
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Stack, kill
from monitoring import load
from monitoring.simulation import parts, receivers

TRACE = "0af7651916cd43dd8448eb211c80319c"
READY_SECONDS = 30.0
LONG_SECONDS = 120.0


async def post(port: int, *batch: Any) -> int:
    """Send as Prometheus does; the status."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return (await client.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=batch)).status_code


async def prometheus(reader: Any, writer: Any) -> None:
    """A Prometheus with one exemplar."""
    while await reader.readuntil(b"\r\n\r\n"):
        body = (
            b'{"status":"success","data":[{"seriesLabels":{},"exemplars":[{"labels":{"trace_id":"'
            + TRACE.encode()
            + b'","request_id":"req-1"},"value":"0.4","timestamp":1}]}]}'
        )
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


@pytest.mark.parametrize("keeps_state", [True, False])
async def test_ids_outlive_the_process(stack: Stack, tmp_path: Path, keeps_state: bool) -> None:
    """Killed at once after an alert fired: the resolved message names its trace, or says why not."""
    manager = load.Alertmanager()
    state = tmp_path / "state.sqlite"
    fired = load.alert(1)
    async with load.listening(manager.talk) as url, load.listening(prometheus) as source:
        port = free_ports(1)[0]
        part = load.relay_part(port, state, (url,), "--prometheus", source)
        first = stack.start(part)
        stack.wait_ready(READY_SECONDS)
        assert await post(port, fired) == 200
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
        stack.running.clear()
        if not keeps_state:
            for file in tmp_path.glob("state.sqlite*"):
                file.unlink()
        stack.start(part)
        stack.wait_ready(READY_SECONDS)
        resolved = {**fired, "endsAt": load.alert(1, timedelta(seconds=0))["endsAt"]}
        assert await post(port, resolved) == 200
    assert manager.alerts[0]["annotations"]["trace_id"] == TRACE
    last = manager.alerts[-1]["annotations"]
    if keeps_state:
        assert (last["trace_id"], last["request_id"]) == (TRACE, "req-1")
    else:
        assert last["trace_id"].startswith("none: the relay has no record")


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
        stack.start(load.relay_part(port, stack.out / "state.sqlite", (one, two), *more))
        stack.wait_ready(READY_SECONDS)
        sent, refused = await load.send(f"http://127.0.0.1:{port}", 3)
        assert not refused
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        running = stack.running[0].process
        running.terminate()
        running.wait()
        stack.running.clear()
    for manager in managers:
        assert set(manager.came) == set(sent)
        for came in manager.alerts:
            assert came["labels"] == {"alertname": "Load", "number": came["labels"]["number"]}
            assert came["annotations"]["trace_id"].startswith("none: ")
    assert f"otel_shim_relay_alerts_received_total {len(sent)}" in metrics


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
    stack.start(load.relay_part(port, stack.out / "s", (f"http://127.0.0.1:{gone}",)))
    stack.wait_ready(READY_SECONDS)
    assert await post(port, load.alert(1)) == 502
