"""Traces from Tempo's HTTP API: ``/api/search`` with TraceQL, then ``/api/traces/<id>`` (OTLP as JSON)."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from otel_shim import _semconv as semconv
from otel_shim.cli.answers import ask, unexpected
from otel_shim.cli.traces import Backend, Question, Span, Trace

DEFAULT_URL = "http://localhost:3200"
_IDENTITY = semconv.SAFE.union(semconv.UPSTREAM_IDENTITY)
_HEXADECIMAL = re.compile(r"([0-9a-f]{16}){1,2}")
_ERROR = ("STATUS_CODE_ERROR", 2)


def find(backend: Backend, question: Question) -> tuple[Trace, ...]:
    """The traces that answer a question, in no order. Raises BackendError."""
    ids = [question.value] if question.attribute is None else _search(backend, question)
    answers = ((trace_id, ask(backend, f"/api/traces/{trace_id}")) for trace_id in ids)
    found = (
        _trace(backend, trace_id, answer) for trace_id, answer in answers if answer is not None
    )
    return tuple(trace for trace in found if trace is not None)


def traceql(question: Question) -> str:
    """The query of a question; its value can be nothing but the text it is.

    TraceQL takes strings as Go writes them: in double quotes, with backslashes before backslash and quote.
    Control characters are never let in, see ``traces``.
    """
    conditions = [f".{question.attribute} = {_quoted(question.value)}"]
    if question.service is not None:
        conditions.append(f"resource.service.name = {_quoted(question.service)}")
    return f"{{ {' && '.join(conditions)} }}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _search(backend: Backend, question: Question) -> list[str]:
    now = int(time.time())
    parameters = {
        "q": traceql(question),
        "start": str(now - question.seconds),
        "end": str(now + 1),
        "limit": str(question.limit),
    }
    answer = ask(backend, "/api/search", parameters)
    try:
        return [_full_id(item["traceID"]) for item in answer.get("traces") or ()]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise unexpected(backend, "Tempo", error) from error


def _full_id(text: Any) -> str:
    """A trace id in its full length; Tempo leaves zeros in front out. It becomes part of a path."""
    return f"{int(str(text), 16):032x}"


def _trace(backend: Backend, trace_id: str, answer: Any) -> Trace | None:
    try:
        spans = sorted(_spans(trace_id, answer), key=lambda span: span.start_us)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise unexpected(backend, "Tempo", error) from error
    link = f"{backend.url}/api/traces/{trace_id}"
    return Trace(trace_id, link, tuple(spans)) if spans else None


def _spans(trace_id: str, answer: Mapping[str, Any]) -> Iterator[Span]:
    trace = answer.get("trace", answer)  # version 2 of the API puts one more level around it
    for batch in trace.get("batches") or trace.get("resourceSpans") or ():
        resource = _attributes(batch.get("resource", {}))
        for scope in batch.get("scopeSpans") or batch.get("instrumentationLibrarySpans") or ():
            for item in scope.get("spans") or ():
                yield _span(trace_id, item, resource)


def _span(trace_id: str, item: Mapping[str, Any], resource: Mapping[str, Any]) -> Span:
    start = int(item["startTimeUnixNano"])
    own = _attributes(item)
    return Span(
        trace_id=trace_id,
        span_id=_span_id(item["spanId"]),
        parent_id=_span_id(item["parentSpanId"]) if item.get("parentSpanId") else None,
        service=str(resource.get("service.name", "")),
        name=str(item.get("name", "")),
        start_us=start // 1000,
        duration_us=(int(item["endTimeUnixNano"]) - start) // 1000,
        failed=(item.get("status") or {}).get("code") in _ERROR,
        attributes={k: v for k, v in resource.items() if k in _IDENTITY} | own,
    )


def _span_id(text: str) -> str:
    """A span id in hexadecimal; Tempo writes bytes as protobuf's JSON does, in base64."""
    if _HEXADECIMAL.fullmatch(text.lower()):
        return text.lower()
    return base64.b64decode(text, validate=True).hex()


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {item["key"]: _value(item["value"]) for item in holder.get("attributes") or ()}


def _value(value: Mapping[str, Any]) -> Any:
    """One of OTLP's values; integers come as text."""
    kind, plain = next(iter(value.items()), ("", None))
    return int(plain) if kind == "intValue" and plain is not None else plain
