"""The alert relay as a program: killed and restarted, and under load while its backends are silent."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo.stack import Stack, free_ports
from monitoring import load

TRACE = "0af7651916cd43dd8448eb211c80319c"
READY_SECONDS = 30.0


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


async def test_prometheus_is_told_when_no_alertmanager_is_there(stack: Stack) -> None:
    """So that it sends the alert again; once one is back, it gets it."""
    port, gone = free_ports(2)
    stack.start(load.relay_part(port, stack.out / "s", (f"http://127.0.0.1:{gone}",)))
    stack.wait_ready(READY_SECONDS)
    assert await post(port, load.alert(1)) == 502
