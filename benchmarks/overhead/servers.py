"""What runs: a Collector, the downstream service, and the application in each variant."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Running, Stack

from .environments import ROOT, Environment

HERE = Path(__file__).parent
VARIANTS = ("bare", "official", "shim")
EXPORTING = ("official", "shim")
# Under load a batch is sent when it is full. A short delay only shortens the wait for the last one;
# it is the same for both.
_DELAY_MILLISECONDS = "300"
_SECRET = "a-secret-for-measurements-only-0123456789"
_ACCEPTED = re.compile(
    r'^otelcol_receiver_accepted_(spans|log_records|metric_points)(?:_total|__\w+)?\{[^}]*receiver="otlp/(\w+)"[^}]*\} (\S+)$',
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything but the applications listens."""

    official: int
    shim: int
    telemetry: int
    downstream: int


@dataclass(frozen=True, slots=True)
class Application:
    """One application as it is served: the same in each variant."""

    module: str
    access_log: bool = False

    @property
    def name(self) -> str:
        """Names its logs and files."""
        return self.module + ("-access-log" if self.access_log else "")


@dataclass(frozen=True, slots=True)
class Server:
    """A served application."""

    variant: str
    port: int
    running: Running


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Let what is started inside run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start_backends(stack: Stack) -> Ports:
    """Start the Collector and the downstream service."""
    ports = Ports(*free_ports(4))
    telemetry = f"http://127.0.0.1:{ports.telemetry}/metrics"
    downstream = f"http://127.0.0.1:{ports.downstream}/"
    collector = str(ROOT / ".build" / "bin" / "otelcol-shim")
    environment = {
        "BENCH_OFFICIAL_PORT": str(ports.official),
        "BENCH_SHIM_PORT": str(ports.shim),
        "BENCH_TELEMETRY_PORT": str(ports.telemetry),
    }
    argv = (collector, "--config", str(HERE / "collector.yaml"))
    stack.start(Part("collector", argv, telemetry, env=environment))
    argv = (sys.executable, str(HERE / "downstream.py"), str(ports.downstream))
    stack.start(Part("downstream", argv, downstream))
    return ports


def start(
    stack: Stack,
    application: Application,
    variant: str,
    environments: Mapping[str, Environment],
    ports: Ports,
) -> Server:
    """Start one application in one variant."""
    environment = environments["shim" if variant == "shim" else "official"]
    port = free_ports(1)[0]
    launcher = () if variant == "bare" else (environment.program("opentelemetry-instrument"),)
    name = f"{application.name}-{variant}"
    part = Part(
        name,
        (*launcher, *_uvicorn(environment, application, port)),
        f"http://127.0.0.1:{port}/openapi.json",
        env={
            "BENCH_DATABASE": f"{name}.db",
            "BENCH_DOWNSTREAM": f"http://127.0.0.1:{ports.downstream}",
            **_telemetry(variant, ports),
        },
    )
    return Server(variant, port, stack.start(part))


def _uvicorn(environment: Environment, application: Application, port: int) -> tuple[str, ...]:
    return (
        environment.program("uvicorn"),
        f"--app-dir={HERE / 'apps'}",
        f"--port={port}",
        "--loop=asyncio",
        "--http=h11",
        *(() if application.access_log else ("--no-access-log",)),
        f"{application.module}:app",
    )


def _telemetry(variant: str, ports: Ports) -> dict[str, str]:
    """The settings of an operator; beyond these each variant has its own defaults."""
    if variant == "bare":
        return {}
    port = {"official": ports.official, "shim": ports.shim}[variant]
    settings = {
        "OTEL_SERVICE_NAME": "bench",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": _DELAY_MILLISECONDS,
        "OTEL_BLRP_SCHEDULE_DELAY": _DELAY_MILLISECONDS,
    }
    return settings | ({"OTEL_SHIM_SECRET": _SECRET} if variant == "shim" else {})


def accepted(ports: Ports) -> Counter[tuple[str, str]]:
    """What the Collector has accepted by now, by variant and signal, from its own telemetry."""
    text = httpx.get(f"http://127.0.0.1:{ports.telemetry}/metrics", timeout=5).text
    found: Counter[tuple[str, str]] = Counter()
    for signal, variant, value in _ACCEPTED.findall(text):
        found[variant, signal] += int(float(value))
    return found
