"""A request, a query and a log record done in the loaded process, and the telemetry that came of them.

Counting is surer than reasoning: whoever instruments twice, and by whichever way, gives two spans.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind

from otel_shim import _semconv as semconv
from otel_shim.cli import inspection
from otel_shim.cli.observation import Trial

_LOGGER = "doctor"
_PATH = "/otel-shim-doctor"
_CONNECT = "connect"


def attempt() -> Trial:
    """Do the work and count; nothing of it leaves the process."""
    inspection.silence()
    tracers = trace.get_tracer_provider()
    if not isinstance(tracers, TracerProvider):
        return Trial(log_records=_log_records())
    tracers.sampler = ALWAYS_ON  # the operator's sampler would hide most of it
    spans = InMemorySpanExporter()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    request = _spans_of(spans, _do_request)
    query = _spans_of(spans, _do_query)
    return Trial(
        request_spans=_named(request, SpanKind.SERVER),
        request_stamped=any(semconv.SAAS_REQUEST_ID in (s.attributes or {}) for s in request or ()),
        query_spans=_named(query, SpanKind.CLIENT),
        log_records=_log_records(),
    )


def _spans_of(
    exporter: InMemorySpanExporter, work: Callable[[], None]
) -> tuple[ReadableSpan, ...] | None:
    exporter.clear()
    try:
        work()
    except Exception:  # noqa: BLE001 - not installed, or broken in a way that is not the loader's
        return None
    return exporter.get_finished_spans()


def _named(spans: tuple[ReadableSpan, ...] | None, kind: SpanKind) -> tuple[str, ...] | None:
    if spans is None:
        return None
    return tuple(_described(s) for s in spans if s.kind is kind and s.name != _CONNECT)


def _described(span: ReadableSpan) -> str:
    scope = span.instrumentation_scope
    return f"{span.name} by {scope.name if scope is not None else 'unknown'}"


def _do_request() -> None:
    app = importlib.import_module("fastapi").FastAPI()

    @app.get(_PATH)  # type: ignore[untyped-decorator]
    async def answer() -> None:
        """Nothing: the request is what counts."""

    asyncio.run(app(_scope(), _receive, _send))


def _scope() -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: MutableMapping[str, Any]) -> None:
    """Take the response; nobody reads it."""


def _do_query() -> None:
    sqlalchemy: Any = importlib.import_module("sqlalchemy")
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    engine.dispose()


def _log_records() -> int | None:
    loggers = _logs.get_logger_provider()
    if not isinstance(loggers, LoggerProvider):
        return None
    records = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    loggers.add_log_record_processor(SimpleLogRecordProcessor(records))
    logging.getLogger(_LOGGER).error("a record that only the doctor reads")
    return sum(_from_doctor(item) for item in records.get_finished_logs())


def _from_doctor(item: Any) -> bool:
    return bool(item.instrumentation_scope.name == _LOGGER)
