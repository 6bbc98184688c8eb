"""The one place of wiring: what happens when `opentelemetry-instrument` starts a process.

    ShimDistro.configure ─▶ ShimConfigurator.configure ─▶ pre_instrument ─▶ instrumentors ─▶ post_instrument
      environment defaults    SDK providers, exporters       our captures      official ones    one summary

The hooks run whichever distro won, so processors are attached there too, once.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from opentelemetry import _logs, propagate, trace
from opentelemetry.environment_variables import (
    OTEL_LOGS_EXPORTER,
    OTEL_METRICS_EXPORTER,
    OTEL_TRACES_EXPORTER,
)
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_CONFIGURATOR
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_SDK_DISABLED,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv._incubating.attributes.telemetry_attributes import (
    TELEMETRY_DISTRO_NAME,
    TELEMETRY_DISTRO_VERSION,
)
from opentelemetry.util._importlib_metadata import EntryPoint

from otel_shim import _sdk_compat, attributes, config, context, pseudonym
from otel_shim._guard import guarded, logger
from otel_shim.capture import fastapi, sqlalchemy
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.config import Config
from otel_shim.environment_variables import OTEL_SHIM_SECRET, OTEL_SHIM_SECRET_FILE
from otel_shim.signals import export, logs
from otel_shim.signals.propagation import EdgePropagator
from otel_shim.signals.spans import IdentitySpanProcessor

NAME = "otel_shim"
_DEFAULTS = {
    OTEL_PYTHON_CONFIGURATOR: NAME,
    OTEL_TRACES_EXPORTER: "otlp",
    OTEL_METRICS_EXPORTER: "otlp",
    OTEL_LOGS_EXPORTER: "otlp",
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",  # survives a fork; gRPC channels do not
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
}


class ShimDistro(BaseDistro):  # type: ignore[misc]
    """Sets defaults for what the operator left open, and leaves out instrumentors that we replace."""

    def _configure(self, **kwargs: Any) -> None:
        set_defaults(os.environ)

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load an official instrumentor, unless ours or the framework's own telemetry takes its place."""
        if entry_point.name in replaced():
            return
        if entry_point.name == "fastapi":
            kwargs.setdefault("exclude_spans", ["receive", "send"])
        super().load_instrumentor(entry_point, **kwargs)


class ShimConfigurator(_sdk_compat.SDKConfigurator):
    """Configures the SDK as ever, with our processors before its exporters."""

    def _configure(self, **kwargs: Any) -> None:
        super()._configure(  # type: ignore[no-untyped-call]
            span_processors=[IdentitySpanProcessor()],
            log_record_processors=[logs.IdentityLogRecordProcessor()],
            export_span_processor=export.batch_spans,
            export_log_record_processor=export.batch_logs,
            resource_attributes={
                TELEMETRY_DISTRO_NAME: "otel-shim",
                TELEMETRY_DISTRO_VERSION: version("otel-shim"),
            },
            **kwargs,
        )


def set_defaults(environ: MutableMapping[str, str]) -> None:
    """Set what the operator left open; never over what is set."""
    for name, value in _DEFAULTS.items():
        environ.setdefault(name, value)


def replaced() -> frozenset[str]:
    """The official instrumentors that are not loaded because something better does their work."""
    ours = {"sqlalchemy", "logging"}
    return frozenset(ours | ({"fastapi", "starlette"} if fastapi.has_own_telemetry() else set()))


@guarded(default=None)
def pre_instrument() -> None:
    """Wire the shim; runs after the providers exist, whichever distro made them."""
    if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return
    settings = config.from_environ(os.environ)
    logs.take_records(settings.log_format, os.environ.get(OTEL_SERVICE_NAME, ""))
    for error in settings.errors:
        logger.error("%s", error)
    _use_identity(settings)
    _attach_processors()
    propagate.set_global_textmap(EdgePropagator(propagate.get_global_textmap()))
    export.quiet_exporters()
    resolver = Resolver(settings.sources)
    fastapi.install(Capture(settings, resolver), resolver)
    sqlalchemy.install()


def post_instrument() -> None:
    """Say once that the shim is at work."""
    logger.info("otel-shim is active in process %d", os.getpid())


def _use_identity(settings: Config) -> None:
    pseudonymiser = _pseudonymiser(settings)
    clear = settings.user_identity == "clear"
    context.use_stamp(lambda identity: attributes.of(identity, pseudonymiser, clear))


def _pseudonymiser(settings: Config) -> pseudonym.Pseudonymiser | None:
    """The key that the operator gave, else the host's; None, and no pseudonyms, where neither can be had."""
    try:
        return pseudonym.pseudonymiser(_secret(settings))
    except (OSError, pseudonym.SecretError) as error:
        logger.error("no key for pseudonyms, so user.hash is left out: %s", error)
        return None


def _secret(settings: Config) -> bytes:
    if settings.secret is not None:
        return pseudonym.read_secret(settings.secret, OTEL_SHIM_SECRET)
    if settings.secret_file is not None:
        text = Path(settings.secret_file).read_text("ascii")
        return pseudonym.read_secret(text, OTEL_SHIM_SECRET_FILE)
    directory = pseudonym.state_directory(os.environ)
    secret, made = pseudonym.host_secret(directory)
    if made:
        logger.warning(
            "made a secret for pseudonyms in %s; set %s to the same on every host, "
            "or a user has another user.hash on each",
            directory,
            OTEL_SHIM_SECRET,
        )
    return secret


def _attach_processors() -> None:
    """Make up for a configurator that is not ours."""
    tracers = trace.get_tracer_provider()
    if isinstance(tracers, TracerProvider) and not _sdk_compat.has_span_processor(
        tracers, IdentitySpanProcessor
    ):
        tracers.add_span_processor(IdentitySpanProcessor())
    loggers = _logs.get_logger_provider()
    if isinstance(loggers, LoggerProvider) and not _sdk_compat.has_log_processor(
        loggers, logs.IdentityLogRecordProcessor
    ):
        _sdk_compat.first_log_processor(loggers, logs.IdentityLogRecordProcessor())
