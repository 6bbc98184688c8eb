"""Golden OTLP: what the real SDK and the shim's processor emit, as the Collector's processor reads it.

    python -m tests.golden.write            write tests/golden/<case>.otlp.json
    python -m tests.golden.write --check    write nothing; exit 1 and name each file that differs

One file is one export request in OTLP's JSON encoding, its spans in the order in which they ended.
Ids and clock are fixed, so that a file changes only where what is emitted changes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextvars
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_shim
from otel_shim import attributes, config, context, pseudonym
from otel_shim.capture.asgi import Capture, Message
from otel_shim.capture.resolver import Resolver
from otel_shim.signals.propagation import EdgePropagator
from otel_shim.signals.spans import IdentitySpanProcessor

FOLDER = Path(__file__).resolve().parent
NAMESPACE = "roster"
SECRET = b"the secret of the golden files, 32 bytes and more"
START_NANOSECONDS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
STEP_NANOSECONDS = 1_000_000
CALLER = "00-cccccccccccccccccccccccccccccccc-dddddddddddddddd-01"
_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


class FixedIds(IdGenerator):
    """Counts, so that every run gives the same ids."""

    def __init__(self) -> None:
        self._trace_ids = itertools.count(0xA0 << 120 | 1)
        self._span_ids = itertools.count(0xB0 << 56 | 1)

    def generate_span_id(self) -> int:
        return next(self._span_ids)

    def generate_trace_id(self) -> int:
        return next(self._trace_ids)


class SentAtOnce(InMemorySpanExporter):
    """Keeps spans as they were when they ended: what waits for its export may still be named."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep copies."""
        return super().export([_copy(span) for span in spans])


def _copy(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=dict(span.attributes or {}),
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class Recording:
    """Services that share ids, clock and exporter; ``shim`` is instrumented by otel_shim, others officially."""

    def __init__(self) -> None:
        self._ids = FixedIds()
        self.exporter = SentAtOnce()
        self.shim = self._service("roster-api", IdentitySpanProcessor())
        self.connector = self._service("roster-connector")
        self.capture = Capture(config.from_environ({}), Resolver(()))
        self.propagator = EdgePropagator(TraceContextTextMapPropagator())

    def _service(self, name: str, *processors: IdentitySpanProcessor) -> trace.Tracer:
        resource = Resource({"service.name": name, "service.namespace": NAMESPACE})
        provider = TracerProvider(id_generator=self._ids, resource=resource, shutdown_on_exit=False)
        for processor in (*processors, SimpleSpanProcessor(self.exporter)):
            provider.add_span_processor(processor)
        return provider.get_tracer("golden")

    def query(self, statement: str) -> None:
        """A statement sent to a database."""
        with self.shim.start_as_current_span(
            "SELECT roster",
            kind=SpanKind.CLIENT,
            attributes={"db.system.name": "postgresql", "db.query.text": statement},
        ):
            pass

    def call(self, name: str) -> None:
        """A request to the connector, which knows its caller by the headers alone."""
        carrier: dict[str, str] = {}
        with self.shim.start_as_current_span("GET", kind=SpanKind.CLIENT):
            self.propagator.inject(carrier)
            remote = TraceContextTextMapPropagator().extract(carrier, Context())
            self.connector.start_span(name, context=remote, kind=SpanKind.SERVER).end()

    def request(self, endpoint: Callable[[], None], status: int, traceparent: str = "") -> None:
        """An HTTP request, captured as under a server."""
        carrier = {"traceparent": traceparent} if traceparent else {}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with self.shim.start_as_current_span(
                "GET /shifts",
                context=self.propagator.extract(carrier, context=get_current()),
                kind=SpanKind.SERVER,
                attributes={"http.request.method": "GET", "http.route": "/shifts"},
            ) as span:
                endpoint()
                await send({"type": "http.response.start", "status": status, "headers": []})
                span.set_attribute("http.response.status_code", status)

        scope = {
            "type": "http",
            "headers": [(b"x-request-id", b"golden-request")],
            "client": ("203.0.113.7", 50000) if not traceparent else ("10.0.0.7", 50000),
        }
        asyncio.run(self.capture.handle(app, scope, _nothing, _ignored))


async def _nothing() -> Message:
    return {"type": "http.request", "body": b""}


async def _ignored(_: Message) -> None:
    return None


def authenticated_request(recording: Recording) -> None:
    """A query that ends before authentication, one after it, a call to a service without the shim."""

    def endpoint() -> None:
        recording.query("SELECT * FROM session WHERE token = ?")
        otel_shim.bind(org_id="org_7", user_id="u-1", actor_role="planner", plan="team")
        recording.query("SELECT * FROM shift WHERE org = ?")
        recording.call("GET /hours")

    recording.request(endpoint, 200)


def anonymous_request(recording: Recording) -> None:
    """A request that nobody was found for: its query waits for nothing."""
    recording.request(lambda: recording.query("SELECT * FROM session WHERE token = ?"), 401)


def edge_request(recording: Recording) -> None:
    """A caller that is not trusted continued its trace: marked, with the identity that we found."""

    def endpoint() -> None:
        recording.query("SELECT * FROM session WHERE token = ?")
        otel_shim.bind(org_id="org_7", actor_type="api_key", user_id="key-3")

    recording.request(endpoint, 200, traceparent=CALLER)


def job_over_tenants(recording: Recording) -> None:
    """A job that binds one organisation after the other: each has its spans, the root is nobody's."""
    with recording.shim.start_as_current_span("planning.publish"):
        recording.query("SELECT id FROM organisation")
        for org in ("org_1", "org_2"):
            otel_shim.bind(org_id=org, actor_type="job", user_id="publisher")
            recording.query("SELECT * FROM shift WHERE org = ?")
        with otel_shim.identity(org_id="org_3", actor_type="job", user_id="publisher"):
            recording.query("SELECT * FROM shift WHERE org = ?")


CASES = (authenticated_request, anonymous_request, edge_request, job_over_tenants)


@contextmanager
def _fixed_clock() -> Iterator[None]:
    ticks = itertools.count(START_NANOSECONDS, STEP_NANOSECONDS)
    with mock.patch("opentelemetry.sdk.trace.time_ns", side_effect=ticks):
        yield


def emitted(case: Callable[[Recording], None]) -> str:
    """The text of a case's file."""
    maker = pseudonym.pseudonymiser(SECRET)
    context.use_stamp(lambda identity: attributes.of(identity, maker))
    recording = Recording()
    with _fixed_clock():
        # Each case in a context of its own: what a job binds holds until its task ends.
        contextvars.copy_context().run(case, recording)
    request = MessageToDict(
        encode_spans(recording.exporter.get_finished_spans()), use_integers_for_enums=True
    )
    return json.dumps(_with_hex_ids(request), indent=2, sort_keys=True) + "\n"


def _with_hex_ids(value: Any) -> Any:
    """Write ids in hexadecimal, as OTLP's JSON does, and sort attributes: their order says nothing."""
    if isinstance(value, list):
        items = [_with_hex_ids(item) for item in value]
        keyed = all(isinstance(item, dict) and "key" in item for item in items)
        return sorted(items, key=lambda item: str(item["key"])) if keyed else items
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64decode(item).hex() if key in _ID_FIELDS else _with_hex_ids(item)
        for key, item in value.items()
    }


def file_of(case: Callable[[Recording], None]) -> Path:
    """Where a case is kept."""
    return FOLDER / f"{case.__name__}.otlp.json"


def main() -> int:
    """Write or check; 1 where a check found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    texts = {file_of(case): emitted(case) for case in CASES}
    stale = [f for f, text in texts.items() if not f.exists() or f.read_text() != text]
    stale += [f for f in FOLDER.glob("*.otlp.json") if f not in texts]
    for file in stale:
        print(f"{file.name} differs from what is emitted" if check else f"wrote {file.name}")
        if not check:
            file.write_text(texts[file])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
