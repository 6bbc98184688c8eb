"""The programs of the demo and how they are wired."""

import shutil
from dataclasses import dataclass, fields
from pathlib import Path

from .ports import free_ports
from .stack import Part, run_once

NAMESPACE = "saas-demo"
API_SERVICE = "roster-api"
CONNECTOR_SERVICE = "roster-connector"
JOBS_SERVICE = "roster-jobs"
API_WORKERS = 2
CALENDAR_USER = "roster"
CALENDAR_PASSWORD = "calendars-2026"
# A night's work every few seconds.
SCHEDULE = "every 4s"
DATABASE = "saas.db"
# The switch for faults on purpose: what this file says is broken, see the README.
FAULTS = "faults"
ROOT = Path(__file__).resolve().parents[3]
SAAS = Path(__file__).resolve().parents[1]
RADICALE_ENV = ROOT / ".build/envs/radicale"


@dataclass(frozen=True, slots=True)
class Places:
    """Folders: the binaries, three virtual environments, and one for logs and data."""

    binaries: Path
    api_env: Path
    connector_env: Path
    out: Path
    radicale_env: Path = RADICALE_ENV


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports."""

    api: int
    connector: int
    otlp_grpc: int
    otlp_http: int
    prometheus: int
    health: int
    telemetry: int
    jaeger_query: int
    jaeger_query_grpc: int
    jaeger_grpc: int
    jaeger_http: int
    radicale: int
    calendar: int
    scheduler: int


def choose_ports() -> Ports:
    """Ports that are free now."""
    return Ports(*free_ports(len(fields(Ports))))


# On a busy machine a worker may take longer to start than the 5 s that uvicorn waits by default.
_WORKERS = ("--workers", str(API_WORKERS), "--timeout-worker-healthcheck", "60")


def name_of(ports: Ports, port: int | None) -> str:
    """The part of the demo that listens on a port."""
    owners = {ports.api: "api", ports.connector: "connector", ports.jaeger_query: "jaeger"}
    owners |= {ports.radicale: "radicale", ports.calendar: "gate", ports.scheduler: "scheduler"}
    return owners.get(port or 0, "collector")


def local(port: int) -> str:
    """An address of the loopback interface."""
    return f"127.0.0.1:{port}"


def url(port: int, path: str = "") -> str:
    """A URL on the loopback interface."""
    return f"http://{local(port)}{path}"


def jaeger(places: Places, ports: Ports) -> Part:
    """Jaeger v2, traces in memory."""
    return Part(
        "jaeger",
        (str(places.binaries / "jaeger"), "--config", str(ROOT / "deploy/jaeger.yaml")),
        url(ports.jaeger_query, "/api/services"),
        env={
            "JAEGER_QUERY_HTTP": local(ports.jaeger_query),
            "JAEGER_QUERY_GRPC": local(ports.jaeger_query_grpc),
            "JAEGER_OTLP_GRPC": local(ports.jaeger_grpc),
            "JAEGER_OTLP_HTTP": local(ports.jaeger_http),
        },
    )


def collector(places: Places, ports: Ports) -> Part:
    """The Collector with the identity processor; ready when it takes an (empty) export."""
    config = ROOT / "collector-config"
    return Part(
        "collector",
        (
            str(places.binaries / "otelcol-shim"),
            f"--config={config / 'gateway.yaml'}",
            f"--config={config / 'backends/jaeger.yaml'}",
        ),
        url(ports.otlp_http, "/v1/traces"),
        ready_body="{}",
        env={
            "OTELCOL_SHIM_OTLP_GRPC": local(ports.otlp_grpc),
            "OTELCOL_SHIM_OTLP_HTTP": local(ports.otlp_http),
            "OTELCOL_SHIM_PROMETHEUS": local(ports.prometheus),
            "OTELCOL_SHIM_HEALTH": local(ports.health),
            "OTELCOL_SHIM_TELEMETRY_PORT": str(ports.telemetry),
            "OTELCOL_SHIM_METRICS_INTERVAL": "2s",
            "OTELCOL_SHIM_JAEGER": local(ports.jaeger_grpc),
        },
    )


def _telemetry(service: str, ports: Ports) -> dict[str, str]:
    """All that a service is told about telemetry."""
    return {
        "OTEL_SERVICE_NAME": service,
        "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={NAMESPACE}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url(ports.otlp_http),
        # Only so that the demo need not wait for 5 s batches.
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }


def _server(env: Path, app: str, port: int, *more: str) -> tuple[str, ...]:
    """The command line of an instrumented server."""
    uvicorn = (str(env / "bin/uvicorn"), "--app-dir", str(SAAS), app, "--port", str(port))
    return (str(env / "bin/opentelemetry-instrument"), *uvicorn, "--no-access-log", *more)


def connector(places: Places, ports: Ports) -> Part:
    """The partner, under the official launcher and packages only."""
    return Part(
        "connector",
        _server(places.connector_env, "connector.app:app", ports.connector),
        url(ports.connector, "/health"),
        # Official packages export over gRPC unless told otherwise.
        env=_telemetry(CONNECTOR_SERVICE, ports)
        | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "SAAS_FAULTS": FAULTS},
    )


def api(places: Places, ports: Ports) -> Part:
    """The product, under otel-shim; its code is unchanged."""
    return Part(
        "api",
        _server(places.api_env, "api.app:app", ports.api, *_WORKERS),
        url(ports.api, "/health"),
        env=_telemetry(API_SERVICE, ports) | _product(ports),
    )


def _product(ports: Ports) -> dict[str, str]:
    """Where API and scheduler find what they need."""
    return {
        # Relative: the file's path becomes part of the names of its spans.
        "SAAS_DATABASE_URL": f"sqlite:///{DATABASE}",
        "SAAS_CONNECTOR_URL": url(ports.connector),
        "SAAS_FAULTS": FAULTS,
    }


def radicale(places: Places, ports: Ports) -> Part:
    """The calendar server, with one account and nothing in it."""
    folder = places.out / "calendars"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "users").write_text(f"{CALENDAR_USER}:{CALENDAR_PASSWORD}\n")
    options = {
        "server-hosts": local(ports.radicale),
        "auth-type": "htpasswd",
        "auth-htpasswd-filename": str(folder / "users"),
        "auth-htpasswd-encryption": "plain",
        "storage-filesystem-folder": str(folder),
        "logging-level": "warning",
    }
    argv = (str(places.radicale_env / "bin/radicale"), "--config", "")
    arguments = tuple(f"--{name}={value}" for name, value in options.items())
    return Part("radicale", argv + arguments, url(ports.radicale, "/.web/"))


def gate(places: Places, ports: Ports) -> Part:
    """What stands before the calendar server to make it slow or unreachable on purpose."""
    env = {
        "PYTHONPATH": str(SAAS),
        "SAAS_GATE_PORT": str(ports.calendar),
        "SAAS_GATE_TARGET": str(ports.radicale),
        "SAAS_FAULTS": FAULTS,
    }
    argv = (str(places.connector_env / "bin/python"), "-m", "connector.gate")
    return Part("gate", argv, url(ports.calendar, "/.web/"), env=env)


def scheduler(places: Places, ports: Ports) -> Part:
    """The product's jobs, under otel-shim; one process, which also drains the calendar queue."""
    launcher = str(places.api_env / "bin/opentelemetry-instrument")
    argv = (launcher, str(places.api_env / "bin/python"), "-m", "api.scheduler")
    env = {
        "PYTHONPATH": str(SAAS),
        "SAAS_CALENDAR_URL": url(ports.calendar, f"/{CALENDAR_USER}/"),
        "SAAS_CALENDAR_USER": CALENDAR_USER,
        "SAAS_CALENDAR_PASSWORD": CALENDAR_PASSWORD,
        "SAAS_SCHEDULE": SCHEDULE,
        "SAAS_SCHEDULER_PORT": str(ports.scheduler),
    }
    telemetry = _telemetry(JOBS_SERVICE, ports)
    health = url(ports.scheduler, "/health")
    return Part("scheduler", argv, health, env=telemetry | _product(ports) | env)


def seed(places: Places) -> None:
    """Make a fresh database, uninstrumented, so that its hundreds of queries are in nobody's way.

    Faults of an earlier run are switched off.
    """
    for old in (*places.out.glob(f"{DATABASE}*"), places.out / FAULTS):
        old.unlink(missing_ok=True)
    run_once(
        "seed",
        (str(places.api_env / "bin/python"), "-m", "api.seed"),
        SAAS,
        {"SAAS_DATABASE_URL": f"sqlite:///{places.out / DATABASE}"},
    )
