"""Traces from Jaeger's HTTP API (v2 answers the same as v1): ``/api/services``, ``/api/traces``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from otel_shim.cli.answers import ask, unexpected
from otel_shim.cli.traces import Backend, Question, Span, Trace

DEFAULT_URL = "http://localhost:16686"


def find(backend: Backend, question: Question) -> tuple[Trace, ...]:
    """The traces that answer a question, in no order. Raises BackendError."""
    if question.attribute is None:
        return _traces(backend, ask(backend, f"/api/traces/{question.value}"))
    found: dict[str, Trace] = {}
    for service in _services(backend, question):
        for trace in _traces(backend, ask(backend, "/api/traces", _parameters(question, service))):
            found[trace.trace_id] = trace
    return tuple(found.values())


def _services(backend: Backend, question: Question) -> Iterable[str]:
    """Jaeger searches one service at a time."""
    if question.service is not None:
        return (question.service,)
    answer = ask(backend, "/api/services")
    try:
        return tuple(map(str, answer["data"] or ()))
    except (TypeError, KeyError) as error:
        raise unexpected(backend, "Jaeger", error) from error


def _parameters(question: Question, service: str) -> Mapping[str, str]:
    now = time.time_ns() // 1000
    return {
        "service": service,
        "tags": json.dumps({question.attribute: question.value}),
        "start": str(now - question.seconds * 1_000_000),
        "end": str(now),
        "limit": str(question.limit),
    }


def _traces(backend: Backend, answer: Any) -> tuple[Trace, ...]:
    if answer is None:
        return ()
    try:
        return tuple(_trace(backend, item) for item in answer["data"] or () if item["spans"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise unexpected(backend, "Jaeger", error) from error


def _trace(backend: Backend, item: Mapping[str, Any]) -> Trace:
    trace_id = str(item["traceID"]).zfill(32)
    services = {key: str(value["serviceName"]) for key, value in item["processes"].items()}
    spans = [_span(trace_id, span, services[span["processID"]]) for span in item["spans"]]
    link = f"{backend.url}/trace/{trace_id}"
    return Trace(trace_id, link, tuple(sorted(spans, key=lambda span: span.start_us)))


def _span(trace_id: str, item: Mapping[str, Any], service: str) -> Span:
    parents = [r["spanID"] for r in item.get("references") or () if r["refType"] == "CHILD_OF"]
    tags = {tag["key"]: tag["value"] for tag in item.get("tags") or ()}
    return Span(
        trace_id=trace_id,
        span_id=str(item["spanID"]),
        parent_id=str(parents[0]) if parents else None,
        service=service,
        name=str(item["operationName"]),
        start_us=int(item["startTime"]),
        duration_us=int(item["duration"]),
        failed=tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR",
        attributes=tags,
    )
