"""The application under `opentelemetry-instrument`, the Collector and Jaeger, as real processes."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from examples.saas.demo import parts
from examples.saas.demo.jaeger import Jaeger
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Running, Stack, is_ready, run_once, running
from tests.wheel import ROOT

from . import collectors
from .environments import APPS, Environment

SECRET = "a secret that only these end-to-end tests use, 0123456789"
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Backend:
    """A running Collector with Jaeger behind it, and one more backend that takes logs."""

    otlp: str
    jaeger: Jaeger
    taker: collectors.Fake

    def logs(self, service: str) -> list[LogRecord]:
        """The log records of a service that went through the Collector so far."""
        return [
            record
            for path, body in list(self.taker.bodies)
            if path == "/v1/logs"
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            if texts(resource.resource.attributes)["service.name"] == service
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


def texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """The attributes that are text."""
    return {
        item.key: item.value.string_value
        for item in attributes
        if item.value.HasField("string_value")
    }


@contextmanager
def backend(out: Path) -> Iterator[Backend]:
    """Start Collector and Jaeger; both are stopped at the end."""
    ports = parts.choose_ports()
    places = parts.Places(ROOT / ".build/bin", out, out, out)
    gateway = parts.collector(places, ports)
    logs_too = f"--config={ROOT / 'collector-config/backends/otlp.yaml'}"
    with collectors.healthy() as taker, running(out) as stack:
        stack.start(parts.jaeger(places, ports))
        stack.start(
            replace(
                gateway,
                argv=(*gateway.argv, logs_too),
                env={**gateway.env, "OTELCOL_SHIM_OTLP_BACKEND": taker.url},
            )
        )
        stack.wait_ready(READY_SECONDS)
        yield Backend(parts.url(ports.otlp_http), Jaeger(parts.url(ports.jaeger_query)), taker)


@dataclass(frozen=True)
class Server:
    """A running application."""

    url: str
    process: Running

    @property
    def log(self) -> str:
        """All that it wrote so far, on standard output and standard error."""
        return self.process.log.read_text(errors="replace")

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """One request on a connection of its own, so that any worker may take it."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # There is no TLS, and reading certificates for it would take longer than the request.
        return httpx.get(self.url + path, headers=headers, timeout=30, verify=False)

    def stop(self, seconds: float) -> float:
        """Ask it to end, wait, and say after how many seconds it was gone."""
        asked = time.monotonic()
        os.kill(self.process.process.pid, signal.SIGTERM)
        self.process.process.wait(seconds)
        return time.monotonic() - asked


def telemetry(service: str, otlp: str) -> dict[str, str]:
    """What an operator sets; delays are short so that tests need not wait for 5 s batches."""
    return {
        "OTEL_SERVICE_NAME": service,
        "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=help-desk",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        "OTEL_SHIM_SECRET": SECRET,
    }


def uvicorn(
    environment: Environment, app: str, port: int, workers: int, env: Mapping[str, str]
) -> Part:
    """The application as its operator starts it on a busy machine: a worker may take its time to start."""
    several = ("--timeout-worker-healthcheck", "60") if workers > 1 else ()
    return Part(
        f"{app.partition(':')[0]}-{port}",
        (
            *(environment.program("opentelemetry-instrument"), environment.program("uvicorn")),
            *("--app-dir", str(APPS.parent), app, "--port", str(port), "--workers", str(workers)),
            # Longer than a client here leaves one alone: who asks at the moment at which it ends gets no answer.
            *("--timeout-keep-alive", "60", *several),
        ),
        parts.url(port, "/health"),
        env=env,
    )


def start(
    stack: Stack,
    environment: Environment,
    env: Mapping[str, str],
    workers: int = 1,
    app: str = "apps.desk:app",
) -> Server:
    """Start an application and wait until it serves."""
    (port,) = free_ports(1)
    process = stack.start(uvicorn(environment, app, port, workers, env))
    return ready(port, process)


def ready(port: int, process: Running) -> Server:
    """Wait until a started application serves."""

    def serves() -> bool:
        assert process.process.poll() is None, process.log.read_text(errors="replace")
        return is_ready(process.part)

    eventually(serves, READY_SECONDS, f"{process.part.name} serves")
    return Server(parts.url(port), process)


def start_together(
    stack: Stack, environment: Environment, env: Mapping[str, str], workers: tuple[int, ...]
) -> list[Server]:
    """Start several servers of the application at the same time, each with so many workers."""
    ports = free_ports(len(workers))
    started = [
        stack.start(uvicorn(environment, "apps.desk:app", port, count, env))
        for port, count in zip(ports, workers, strict=True)
    ]
    return [ready(port, process) for port, process in zip(ports, started, strict=True)]


def fill_database(environment: Environment, out: Path) -> None:
    """Make the help desk's database in a folder, without telemetry."""
    argv = (environment.program("python"), "-m", "apps.store")
    run_once("fill", argv, APPS.parent, {"DESK_DATABASE": str(out / "desk.db")})


@dataclass
class Partner:
    """A small server of somebody else; keeps the headers of what it was asked."""

    url: str
    asked: list[dict[str, str]]


@contextmanager
def partner() -> Iterator[Partner]:
    """Serve until the end of the block."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            """Keep the output of the tests clean."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield Partner(parts.url(port), asked)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    """Run a server of the standard library in a thread; gives its port."""
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def eventually(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask until it holds; fails with ``what`` when time runs out."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.05)


def lines_with(log: str, pattern: str) -> list[str]:
    """The lines of an output that match."""
    return [line for line in log.splitlines() if re.search(pattern, line)]
