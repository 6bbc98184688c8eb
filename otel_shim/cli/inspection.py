"""What the SDK of this process consists of once it is loaded.

The SDK does not show its parts, so they are read by name, each with a default: with a newer SDK
something may be missing from a report, but no report fails.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry import _logs, metrics, trace

from otel_shim import _sdk_compat
from otel_shim.cli import endpoint
from otel_shim.cli.masking import masked_url
from otel_shim.cli.observation import Exporter, Handler

_OTLP = "opentelemetry.exporter.otlp"
_OF_EVERY_EXPORTER = ("content-type", "user-agent")


def service_name() -> str:
    """The service's name in the resource; empty where there is no SDK."""
    resource = getattr(trace.get_tracer_provider(), "resource", None)
    return str(resource.attributes.get("service.name", "")) if resource is not None else ""


def exporters() -> Iterator[Exporter]:
    """The exporters of each signal, tried."""
    for signal, found in _parts():
        yield _described(signal, _innermost(found))


def _parts() -> Iterator[tuple[str, Any]]:
    for processor in span_processors():
        if (exporter := exporter_of(processor)) is not None:
            yield "traces", exporter
    for reader in _first(metrics.get_meter_provider(), "_metric_readers") or ():
        if (exporter := _first(reader, "_exporter")) is not None:
            yield "metrics", exporter
    for processor in log_processors():
        if (exporter := exporter_of(processor)) is not None:
            yield "logs", exporter


def span_processors() -> tuple[Any, ...]:
    """The span processors in place."""
    multi = _first(trace.get_tracer_provider(), "_active_span_processor")
    return tuple(_first(multi, "_span_processors") or ())


def log_processors() -> tuple[Any, ...]:
    """The log record processors in place."""
    multi = _first(_logs.get_logger_provider(), "_multi_log_record_processor")
    return tuple(_first(multi, "_log_record_processors") or ())


def silence() -> None:
    """Take the exporting processors out, so that what is tried here reaches no backend."""
    multi = _first(trace.get_tracer_provider(), "_active_span_processor")
    if multi is not None:
        kept = tuple(p for p in span_processors() if exporter_of(p) is None)
        _sdk_compat.keep_processors(multi, kept)
    multi = _first(_logs.get_logger_provider(), "_multi_log_record_processor")
    if multi is not None:
        kept = tuple(p for p in log_processors() if exporter_of(p) is None)
        _sdk_compat.keep_processors(multi, kept)


def exporter_of(processor: Any) -> Any:
    """The exporter of a processor; None for one that does not export."""
    batch = _first(processor, "_batch_processor")
    return _first(batch, "_exporter") or _first(processor, "span_exporter", "_exporter")


def _innermost(exporter: Any) -> Any:
    """The exporter in the shim's own wrappers."""
    while (inner := _first(exporter, "_exporter")) is not None:
        exporter = inner
    return exporter


def _described(signal: str, exporter: Any) -> Exporter:
    kind = f"{type(exporter).__module__}.{type(exporter).__qualname__}"
    address = _first(exporter, "_endpoint")
    if not kind.startswith(_OTLP) or not isinstance(address, str):
        return Exporter(signal, kind)
    headers = _headers(exporter)
    verdict = endpoint.probe(address, signal, headers, ".grpc." not in kind)
    own = tuple(sorted(h for h in headers if h.lower() not in _OF_EVERY_EXPORTER))
    return Exporter(signal, kind, masked_url(address), own, *verdict)


def _headers(exporter: Any) -> Mapping[str, str]:
    found = _first(_first(exporter, "_client"), "_headers") or _first(exporter, "_headers") or {}
    return {str(k): str(v) for k, v in dict(found).items()}


def handlers() -> Iterator[Handler]:
    """Handlers of any logger that send records to OpenTelemetry."""
    named = list(logging.Logger.manager.loggerDict.items())
    for name, logger in [("root", logging.getLogger()), *named]:
        for handler in getattr(logger, "handlers", ()):
            if any(_sends(kind) for kind in type(handler).__mro__):
                yield Handler(name, f"{type(handler).__module__}.{type(handler).__qualname__}")


def _sends(kind: type) -> bool:
    return kind.__name__ == "LoggingHandler" and kind.__module__.startswith("opentelemetry.")


def _first(owner: Any, *names: str) -> Any:
    """The first of these parts that an object has; None where it has none."""
    return next((getattr(owner, name) for name in names if hasattr(owner, name)), None)
