"""The one place of wiring: what happens when `opentelemetry-instrument` starts a process.

    ShimDistro.configure ─▶ ShimConfigurator.configure ─▶ pre_instrument ─▶ instrumentors ─▶ post_instrument
      environment defaults    SDK providers, exporters       our captures      official ones    one summary

The hooks run whichever distro won, so processors are attached there too, once.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import MutableMapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from opentelemetry import _logs, trace
from opentelemetry import metrics as metrics_api
from opentelemetry.environment_variables import (
    OTEL_LOGS_EXPORTER,
    OTEL_METRICS_EXPORTER,
    OTEL_TRACES_EXPORTER,
)
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_CONFIGURATOR
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.environment_variables import (
    OTEL_CONFIG_FILE,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv._incubating.attributes.service_attributes import SERVICE_INSTANCE_ID
from opentelemetry.semconv._incubating.attributes.telemetry_attributes import (
    TELEMETRY_DISTRO_NAME,
    TELEMETRY_DISTRO_VERSION,
)
from opentelemetry.util._importlib_metadata import EntryPoint

from otel_shim import _sdk_compat, attributes, context, declared, jobs, pseudonym, startup, steering
from otel_shim._guard import guarded, logger
from otel_shim.capture import (
    deliveries,
    fastapi,
    http_settings,
    httpx,
    loguru,
    official,
    sqlalchemy,
    starlette,
    structlog,
)
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.config import Config
from otel_shim.environment_variables import OTEL_SHIM_SECRET
from otel_shim.signals import (
    calendars,
    encoding,
    export,
    forks,
    logs,
    propagation,
    sampling,
    termination,
)
from otel_shim.signals import queues as queue_metrics
from otel_shim.signals.jobs import JobMetrics
from otel_shim.signals.metrics import RequestMetrics
from otel_shim.signals.spans import IdentitySpanProcessor
from otel_shim.wiring import NAME, Wiring, environ, wiring

_SDK = (TracerProvider, MeterProvider, LoggerProvider)
_SEMCONV = "OTEL_SEMCONV_STABILITY_OPT_IN"
_DEFAULTS = {
    OTEL_PYTHON_CONFIGURATOR: NAME,
    OTEL_TRACES_EXPORTER: "otlp",
    OTEL_METRICS_EXPORTER: "otlp",
    OTEL_LOGS_EXPORTER: "otlp",
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",  # survives a fork; gRPC channels do not
    _SEMCONV: "http,database",
}


class ShimDistro(BaseDistro):  # type: ignore[misc]
    """Sets defaults for what the operator left open, and leaves out instrumentors that we replace."""

    def _configure(self, **kwargs: Any) -> None:
        set_defaults(os.environ)
        steering.quiet_loader()

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load an official instrumentor, unless ours or the framework's own telemetry takes its place."""
        wired = wiring()
        taken = wired.takes(entry_point.name, entry_point.module)
        if wired.wants(entry_point.name) and not taken:
            super().load_instrumentor(entry_point, **kwargs)


_unapplied: list[str] = []
"""What was wrong with the configuration file, until there is a log to say it in."""


class ShimConfigurator(_sdk_compat.SDKConfigurator):
    """Configures the SDK as ever; what is ours is attached afterwards, as under any other configurator."""

    def _configure(self, **kwargs: Any) -> None:
        set_defaults(os.environ)  # where another distro won, or a misspelt one
        steering.quiet_loader()
        wired = wiring()
        if wired.declared is not None and _apply(wired.declared):
            return
        super()._configure(resource_attributes=_about_the_distro(), **kwargs)  # type: ignore[no-untyped-call]


def _apply(model: Any) -> bool:
    """Apply a configuration file; where it cannot be applied, the environment is used as if there was none."""
    try:
        # Besides the distro, what the environment's way has and a file leaves out: above all the process.
        declared.configure(model, {**_about_the_distro(), SERVICE_INSTANCE_ID: str(uuid.uuid4())})
    except Exception as error:  # noqa: BLE001 - a broken file must not leave the app without telemetry
        path = os.environ.pop(OTEL_CONFIG_FILE)
        _unapplied.append(
            f"{OTEL_CONFIG_FILE}={path} cannot be applied, the environment is used instead: "
            f"{type(error).__name__}: {error}"
        )
        return False
    return True


def _about_the_distro() -> dict[str, str]:
    return {
        TELEMETRY_DISTRO_NAME: "otel-shim",
        TELEMETRY_DISTRO_VERSION: version("otel-shim"),
    }


def set_defaults(environ: MutableMapping[str, str]) -> None:
    """Set what the operator left open; never over what is set."""
    for name, value in _DEFAULTS.items():
        environ.setdefault(name, value)


@guarded(default=None)
def pre_instrument() -> None:
    """Wire the shim; runs after the providers exist, whichever distro made them."""
    wired = wiring()
    if not wired.active:
        return
    settings = wired.settings
    os.environ.setdefault(_SEMCONV, _DEFAULTS[_SEMCONV])  # where another distro won
    steering.steer(wired)
    if wired.wants("logging"):
        _take_logs(wired)
    for error in (*settings.errors, *_unapplied, *steering.misspelt(os.environ)):
        logger.error("%s", error)
    _use_identity(settings)
    _tell_processes_apart()
    _attach_processors()
    propagation.install()
    deliveries.use_relation(settings.queue_relation)
    export.quiet_exporters()
    forks.export_for_itself()
    if settings.on_sigterm == "flush":
        termination.install()
    encoding.install()
    resolver = Resolver(settings.sources)
    capture = Capture(settings, resolver, _metrics(), _headers())
    fastapi.install(capture if wired.wants("fastapi") else None, resolver)
    official.once_a_request()
    official.no_spans_of_background_tasks()
    if wired.wants("starlette"):
        starlette.install(capture)
    elif wired.wants("fastapi"):
        starlette.watch_routes()
    if wired.wants("sqlalchemy"):
        sqlalchemy.install()
    if wired.wants("httpx"):
        httpx.install()


def _take_logs(wired: Wiring) -> None:
    settings = wired.settings
    intake = logs.take_records(settings.log_format, os.environ.get(OTEL_SERVICE_NAME, ""))
    for name, library in (("structlog", structlog), ("loguru", loguru)):
        if wired.wants(name):
            library.install(intake, shown=settings.log_format == "json")


def _headers() -> http_settings.CapturedHeaders | None:
    """The headers for server spans; those of the official middleware it puts there itself."""
    return http_settings.captured_headers() if fastapi.has_own_telemetry() else None


@guarded(default=None)
def _metrics() -> RequestMetrics | None:
    """Record requests and jobs, where anybody reads it."""
    meters = metrics_api.get_meter_provider()
    if not isinstance(meters, MeterProvider):
        return None
    _publish(meters, wiring().settings)
    if not _sdk_compat.has_metric_readers(meters):
        return None
    jobs.use_recorder(JobMetrics(meters))
    queue_metrics.install(meters)
    forks.count_for_itself(meters)
    return RequestMetrics(meters)


def _publish(meters: MeterProvider, settings: Config) -> None:
    """Serve `/metrics`, where the operator named a port."""
    if settings.metrics_port is None:
        return
    try:
        # Only who wants it pays for it; and it needs locks of files, which Windows does not have.
        from otel_shim.signals import scrape  # noqa: PLC0415

        name = f"otel-shim-metrics-{os.geteuid()}-{settings.metrics_port}"
        directory = Path(settings.metrics_directory or Path(tempfile.gettempdir(), name))
        address = (settings.metrics_host, settings.metrics_port)
        scrape.publish(meters, scrape.Publisher(directory, *address, _metrics_token(settings)))
    except (OSError, ImportError) as error:
        logger.error("/metrics is not served: %s", error)


def _metrics_token(settings: Config) -> str | None:
    """The token for `/metrics`; OSError where a file for it was named and holds none."""
    if settings.metrics_token is not None or settings.metrics_token_file is None:
        return settings.metrics_token
    token = Path(settings.metrics_token_file).read_text(encoding="utf-8").strip()
    if not token:
        raise OSError(f"{settings.metrics_token_file} is empty")
    return token


@guarded(default=None)
def post_instrument() -> None:
    """Let the application instrument what it likes, and say once that the shim is at work."""
    wired = wiring()
    if not wired.active:
        return
    steering.release()
    startup.launched()
    logger.info("otel-shim is active in process %d", os.getpid())


def _use_identity(settings: Config) -> None:
    pseudonymiser = _pseudonymiser(settings)
    clear = settings.user_identity == "clear"
    context.use_stamp(lambda identity: attributes.of(identity, pseudonymiser, clear))
    calendars.use_pseudonyms(pseudonymiser)


def _pseudonymiser(settings: Config) -> pseudonym.Pseudonymiser | None:
    """The key that the operator gave, else the host's; None, and no pseudonyms, where neither can be had."""
    try:
        secret, made_in = pseudonym.secret_of(settings, environ())
    except (OSError, pseudonym.SecretError) as error:
        logger.error("no key for pseudonyms, so user.hash is left out: %s", error)
        return None
    if made_in is not None:
        logger.warning(
            "made a secret for pseudonyms in %s; set %s to the same on every host, "
            "or a user has another user.hash on each",
            made_in,
            OTEL_SHIM_SECRET,
        )
    return pseudonym.pseudonymiser(secret)


@guarded(default=None)
def _tell_processes_apart() -> None:
    """Give the process an instance id where it has none: another's configurator takes the file as it is.

    The SDK gives each forked process a new one.
    """
    providers = [each for each in export.providers() if isinstance(each, _SDK)]
    _sdk_compat.complete_resources(providers, {SERVICE_INSTANCE_ID: str(uuid.uuid4())})


def _attach_processors() -> None:
    """Attach what is ours to the providers, whoever made them; twice is once."""
    tracers = trace.get_tracer_provider()
    if isinstance(tracers, TracerProvider) and not _sdk_compat.has_span_processor(
        tracers, IdentitySpanProcessor
    ):
        _sdk_compat.wrap_span_exporters(tracers, export.CountingSpanExporter)
        tracers.add_span_processor(IdentitySpanProcessor())
        sampling.keep_attributes(tracers)
    loggers = _logs.get_logger_provider()
    if isinstance(loggers, LoggerProvider) and not _sdk_compat.has_log_processor(
        loggers, logs.IdentityLogRecordProcessor
    ):
        _sdk_compat.wrap_log_exporters(loggers, export.CountingLogExporter)
        _sdk_compat.first_log_processor(loggers, logs.IdentityLogRecordProcessor())
