"""Fixtures: telemetry in memory, the shim wired to it, and every global as it was afterwards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import fastapi
import pytest
from fastapi import routing
from opentelemetry import _logs, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_shim import _guard, attributes, counters, jobs, operations, pseudonym
from otel_shim import config as shim_config
from otel_shim import context as identity_context
from otel_shim.capture import fastapi as fastapi_capture
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.heartbeats import heartbeats
from otel_shim.signals.logs import IdentityLogRecordProcessor
from otel_shim.signals.propagation import EdgePropagator
from otel_shim.signals.spans import IdentitySpanProcessor
from tests.unit.telemetry import SECRET, Telemetry, record_with

MAKER = pseudonym.pseudonymiser(SECRET)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Counters, reported faults and the current context are the test's own."""
    monkeypatch.setattr(counters, "_counts", Counter())
    monkeypatch.setattr(_guard, "_reported", set())
    monkeypatch.setattr(heartbeats, "_declared", {})
    monkeypatch.setattr(heartbeats, "_together", {})
    monkeypatch.setattr(heartbeats, "_withdrawn", {})
    monkeypatch.setattr(heartbeats, "_beats", {})
    monkeypatch.setattr(identity_context, "_stamp", identity_context._stamp)
    token = context.attach(context.Context())
    yield
    context.detach(token)


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """The shim's processors in global providers, exporting to memory, with a fixed secret."""
    recording = record_with(IdentitySpanProcessor(), IdentityLogRecordProcessor())
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", recording.tracers)
    monkeypatch.setattr(_logs._internal, "_LOGGER_PROVIDER", recording.loggers)
    for module in (operations, jobs):
        monkeypatch.setattr(module, "_tracer", recording.tracers.get_tracer("otel_shim"))
    identity_context.use_stamp(lambda identity: attributes.of(identity, MAKER))
    yield recording
    recording.tracers.shutdown()
    recording.loggers.shutdown()


@pytest.fixture
def tracer(telemetry: Telemetry) -> trace.Tracer:
    """A tracer of an application under the shim."""
    return telemetry.tracer()


@pytest.fixture
def edge_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The global propagator as the distro leaves it."""
    usual = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", EdgePropagator(usual))


@pytest.fixture
def shim_fastapi(
    telemetry: Telemetry, edge_propagation: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Puts the shim into FastAPI, configured by environment variables; taken out afterwards."""
    monkeypatch.setattr(fastapi.FastAPI, "__call__", fastapi.FastAPI.__call__)
    monkeypatch.setattr(fastapi.FastAPI, "__init__", fastapi.FastAPI.__init__)
    solver = vars(routing)["solve_dependencies"]
    monkeypatch.setattr(routing, "solve_dependencies", solver)

    def install(**environ: str) -> None:
        settings = shim_config.from_environ(environ)
        resolver = Resolver(settings.sources)
        fastapi_capture.install(Capture(settings, resolver), resolver)

    return install


@pytest.fixture
def logging_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that is global in ``logging``, as it was before."""
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    monkeypatch.setattr(logging.Handler, "format", logging.Handler.format)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    before = {
        logger: (list(logger.handlers), logger.propagate, logger.level) for logger in _loggers()
    }
    yield
    for logger in _loggers():
        logger.handlers[:], logger.propagate, level = before.get(logger, ([], True, logging.NOTSET))
        logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]
