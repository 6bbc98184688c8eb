"""The SDK as a configuration file declares it: all of it, or nothing.

OpenTelemetry's own way makes one provider after the other global, and nothing takes that back: a file that
breaks in the middle leaves a process half of which is configured otherwise than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk.resources import Resource

from otel_shim import _sdk_compat


def configure(model: Any, attributes: Mapping[str, str]) -> None:
    """Make the providers that a file declares, and make them global once all are made.

    ``attributes`` are added to what the file says of the resource. Raises what making them raises; what
    was started by then is stopped.
    """
    if model.disabled:
        return
    parts: Any = import_module("opentelemetry.configuration.file")
    with _sdk_compat.stopped_on_failure():
        tracers, meters, loggers = _made(parts, model, attributes)
        parts.create_propagator(model.propagator)
    if tracers is not None:
        trace.set_tracer_provider(tracers)
    if meters is not None:
        metrics.set_meter_provider(meters)
    if loggers is not None:
        _logs.set_logger_provider(loggers)
    rest = replace(model, tracer_provider=None, meter_provider=None, logger_provider=None)
    parts.configure_sdk(rest)


def _made(parts: Any, model: Any, attributes: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """The providers of spans, metrics and logs; None for each that the file leaves out."""
    resource = Resource(dict(attributes)).merge(parts.create_resource(model.resource))
    limits = model.attribute_limits
    tracers, meters, loggers = model.tracer_provider, model.meter_provider, model.logger_provider
    return (
        tracers and parts.create_tracer_provider(tracers, resource, limits),
        meters and parts.create_meter_provider(meters, resource),
        loggers and parts.create_logger_provider(loggers, resource, limits),
    )
