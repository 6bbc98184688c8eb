"""Telemetry kept in memory with the shim's processors, for tests.

One pair of providers serves the whole process, because a tracer that a module made for itself stays with
the first provider it meets. Between uses it records nothing and is not the global one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

from otel_shim import _sdk_compat, attributes, config, context, pseudonym
from otel_shim import _semconv as semconv
from otel_shim.capture import fastapi
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.model import Identity, Scalar
from otel_shim.signals import logs, propagation
from otel_shim.signals.logs import IdentityLogRecordProcessor
from otel_shim.signals.spans import IdentitySpanProcessor

_INSTRUMENTED = "_is_instrumented_by_opentelemetry"
_SECRET = b"a secret for tests, which all know"
Item = ReadableSpan | ReadableLogRecord


class CountedIds(IdGenerator):
    """Ids that count from 1, so that a test can name them."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from 1 again."""
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)

    def generate_trace_id(self) -> int:
        """The next trace id."""
        return next(self._traces)

    def generate_span_id(self) -> int:
        """The next span id."""
        return next(self._spans)


class _Switch(Sampler):
    """Samples everything while a test uses telemetry, else nothing."""

    def __init__(self) -> None:
        self.on = False

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """The decision of the moment; a caller who decided not to sample is not heard."""
        return (ALWAYS_ON if self.on else ALWAYS_OFF).should_sample(*args, **kwargs)

    def get_description(self) -> str:
        """What it is."""
        return "Switch"


@dataclass(frozen=True)
class Telemetry:
    """The finished spans and the log records of one test."""

    exported_spans: InMemorySpanExporter
    exported_logs: InMemoryLogRecordExporter
    ids: CountedIds

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, in that order."""
        return self.exported_spans.get_finished_spans()

    @property
    def logs(self) -> tuple[ReadableLogRecord, ...]:
        """The log records, in the order in which they were emitted."""
        return tuple(self.exported_logs.get_finished_logs())

    def span(self, name: str) -> ReadableSpan:
        """The one span of this name; AssertionError where there is none or more than one."""
        found = [span for span in self.spans if span.name == name]
        names = [span.name for span in self.spans]
        assert len(found) == 1, f"{len(found)} spans are called {name!r} among {names}"
        return found[0]

    def clear(self) -> None:
        """Forget what there is, and count ids from 1 again."""
        self.exported_spans.clear()
        self.exported_logs.clear()
        self.ids.restart()

    def assert_identity(
        self,
        *,
        org_id: str | None = None,
        user_id: str | None = None,
        actor_type: str | None = None,
        actor_role: str | None = None,
        plan: str | None = None,
        of: Item | Iterable[Item] | None = None,
    ) -> None:
        """Each span and log, or each ``of`` them, belongs to this organisation, user, and so on.

        What is not given is not compared. ``user_id`` is the application's own: the pseudonym that
        telemetry carries is worked out from it and ``org_id``, which must then be given too.
        """
        assert user_id is None or org_id is not None, (
            "user_id needs org_id: pseudonyms differ by organisation"
        )
        expected = _attributes(Identity(org_id, user_id, actor_type, actor_role, plan))
        assert expected, "say which identity is expected, or use assert_no_identity()"
        for item in self._chosen(of):
            found = attributes_of(item)
            wrong = {k: found.get(k) for k, value in expected.items() if found.get(k) != value}
            assert not wrong, f"{_name(item)} has {wrong}, expected {expected}"

    def assert_no_identity(self, *, of: Item | Iterable[Item] | None = None) -> None:
        """No span and log, or none ``of`` them, names an organisation or an actor."""
        nobody = (semconv.SAAS_ACTOR_TYPE, semconv.SAAS_ACTOR_TYPE_ANONYMOUS)
        for item in self._chosen(of):
            found = {k: v for k, v in identity_of(item).items() if (k, v) != nobody}
            assert not found, f"{_name(item)} has {found}, expected nobody"

    def _chosen(self, of: Item | Iterable[Item] | None) -> Sequence[Item]:
        if of is None:
            chosen: list[Item] = [*self.spans, *self.logs]
        else:
            chosen = [of] if isinstance(of, (ReadableSpan, ReadableLogRecord)) else list(of)
        assert chosen, "there is no span and no log to look at"
        return chosen


def attributes_of(item: Item) -> Mapping[str, Any]:
    """The attributes of a span or of a log record."""
    found = item.attributes if isinstance(item, ReadableSpan) else item.log_record.attributes
    return found or {}


def identity_of(item: Item) -> dict[str, Any]:
    """Those attributes of a span or log that say who is behind it."""
    return {k: v for k, v in attributes_of(item).items() if k in attributes.IDENTITY_KEYS}


def _name(item: Item) -> str:
    if isinstance(item, ReadableSpan):
        return f"span {item.name!r}"
    return f"log {item.log_record.body!r}"


@functools.cache
def _pseudonymiser() -> pseudonym.Pseudonymiser:
    return pseudonym.pseudonymiser(_SECRET)


def _attributes(identity: Identity) -> dict[str, Scalar]:
    return attributes.of(identity, _pseudonymiser())


@dataclass(frozen=True)
class _Providers:
    tracers: TracerProvider
    loggers: LoggerProvider
    switch: _Switch
    telemetry: Telemetry


@functools.cache
def _providers() -> _Providers:
    spans, records = InMemorySpanExporter(), InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    switch, ids = _Switch(), CountedIds()
    tracers = TracerProvider(sampler=switch, id_generator=ids, shutdown_on_exit=False)
    tracers.add_span_processor(IdentitySpanProcessor())
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(IdentityLogRecordProcessor())
    loggers.add_log_record_processor(SimpleLogRecordProcessor(records))
    return _Providers(tracers, loggers, switch, Telemetry(spans, records, ids))


@contextlib.contextmanager
def telemetry() -> Iterator[Telemetry]:
    """Keep what is emitted inside; afterwards everything global is as it was."""
    providers = _providers()
    providers.telemetry.clear()
    providers.switch.on = True
    with contextlib.ExitStack() as afterwards:
        afterwards.callback(setattr, providers.switch, "on", False)
        before = _sdk_compat.swap_providers(providers.tracers, providers.loggers)
        afterwards.callback(_sdk_compat.swap_providers, *before)
        afterwards.callback(context.use_stamp, context.use_stamp(_attributes))
        afterwards.callback(propagation.install())
        _take_logs(afterwards)
        _take_requests(afterwards)
        yield providers.telemetry


def _take_logs(afterwards: contextlib.ExitStack) -> None:
    handler = TakingHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    afterwards.callback(root.removeHandler, handler)


class TakingHandler(logging.Handler):
    """Takes what comes to a logger as the shim takes it everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self._intake = logs.Intake("tests")

    def emit(self, record: logging.LogRecord) -> None:
        """Note who is behind a record, and send it."""
        self._intake.take(record)


def _take_requests(afterwards: contextlib.ExitStack) -> None:
    """Let FastAPI's applications be captured as under the launcher, where FastAPI is installed."""
    try:
        applications: Any = importlib.import_module("fastapi.applications")
        routing: Any = importlib.import_module("fastapi.routing")
    except ImportError:
        return
    changed = (
        (applications.FastAPI, "__call__"),
        (applications.FastAPI, "__init__"),
        (routing, "solve_dependencies"),
    )
    for owner, name in changed:
        afterwards.callback(setattr, owner, name, getattr(owner, name))
    settings = config.from_environ({})
    resolver = Resolver(settings.sources)
    fastapi.install(Capture(settings, resolver), resolver)
    if not fastapi.has_own_telemetry():
        _instrument(afterwards, applications.FastAPI)


def _instrument(afterwards: contextlib.ExitStack, kind: Any) -> None:
    """Let an older FastAPI be instrumented by the official package, as under the launcher.

    There it is done when an application is made; here that was before, so it is done at its first request.
    """
    official: Any = importlib.import_module("otel_shim.capture.official")
    starlette: Any = importlib.import_module("otel_shim.capture.starlette")
    _restore_routes(afterwards)
    official.once_a_request()
    starlette.watch_routes()
    handle = kind.__call__

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and not getattr(self, _INSTRUMENTED, False):
            afterwards.callback(official.instrument(self))
        await handle(self, scope, receive, send)

    kind.__call__ = functools.wraps(handle)(call)


def _restore_routes(afterwards: contextlib.ExitStack) -> None:
    asgi: Any = importlib.import_module("opentelemetry.instrumentation.asgi")
    routing: Any = importlib.import_module("starlette.routing")
    included: Any = importlib.import_module("fastapi.routing")
    owners = (routing.Route, routing.WebSocketRoute, routing.Mount, included.APIRoute)
    afterwards.callback(
        setattr,
        asgi.OpenTelemetryMiddleware,
        "__call__",
        asgi.OpenTelemetryMiddleware.__call__,
    )
    for owner in owners:
        if "handle" in vars(owner):
            afterwards.callback(setattr, owner, "handle", owner.handle)
