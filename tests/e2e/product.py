"""The sample SaaS under the demo's traffic, on whichever database; and the demo's own checks of what it left."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from examples.saas.demo import checks, parts
from examples.saas.demo.driver import Call
from examples.saas.demo.jaeger import wait_for
from examples.saas.demo.stack import run_once, running
from examples.saas.demo.traffic import drive
from tests.wheel import ROOT

from . import server
from .environments import Environment

ARRIVAL_SECONDS = 60.0
CONNECTOR = ROOT / ".build/envs/connector"


def seed(locked: Environment, database: str, out: Path) -> None:
    """Make the product's tables and people, without telemetry."""
    argv = (locked.program("python"), "-m", "api.seed")
    env = {"SAAS_DATABASE_URL": database, "PYTHONPATH": str(parts.SAAS)}
    run_once("seed", argv, out, env)


def evidence(
    locked: Environment, backend: server.Backend, database: str, out: Path
) -> checks.Evidence:
    """Send the demo's traffic to API and connector; gives the answers and the traces in Jaeger."""
    assert CONNECTOR.exists(), "run `make envs` first: the connector's environment is not there"
    otlp = httpx.URL(backend.otlp).port
    assert otlp is not None
    places = parts.Places(ROOT / ".build/bin", locked.path, CONNECTOR, out)
    ports = dataclasses.replace(parts.choose_ports(), otlp_http=otlp)
    api = parts.api(places, ports)
    with running(out) as stack:
        stack.start(parts.connector(places, ports))
        stack.start(dataclasses.replace(api, env={**api.env, "SAAS_DATABASE_URL": database}))
        stack.wait_ready(server.READY_SECONDS)
        calls = asyncio.run(drive(parts.url(ports.api)))
        stack.check_alive()
    return checks.Evidence(calls, _arrived(backend, calls))


def _arrived(backend: server.Backend, calls: list[Call]) -> dict[str, Any]:
    """Services have stopped and sent all they had; what the Collector holds is out when no more comes."""
    traces, lack = wait_for(
        lambda: backend.jaeger.by_id(call.trace_id for call in calls if call.trace_id),
        lambda found: checks.lacking(calls, found),
        ARRIVAL_SECONDS,
    )
    assert lack is None, lack
    return traces


def hold(findings: Iterable[checks.Finding]) -> None:
    """There are findings, and each is good."""
    found = list(findings)
    assert found
    bad = [finding for finding in found if not finding.ok]
    assert not bad, "\n".join(f"{each.what}: {each.contradictions}" for each in bad)
