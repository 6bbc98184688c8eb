"""Traces from a trace backend, where Prometheus has no exemplar: Jaeger's and Tempo's search."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from otel_shim import _semconv as semconv
from otel_shim.relay.asking import asked
from otel_shim.relay.model import Question, Sighting

LONGEST = {"jaeger": float("inf"), "tempo": 168 * 3600.0 - 60.0}
"""The longest window, in seconds, of a search that each takes: Tempo's `search.max_duration`, with a margin."""
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_LIMIT = 20
_MOST = 3


async def find(
    client: httpx.AsyncClient, kind: str, url: str, question: Question, now: float
) -> tuple[Sighting, ...]:
    """The traces that show the fault, the longest (or newest) first. Raises LookupFailed."""
    ask = jaeger_request if kind == "jaeger" else tempo_request
    read = jaeger_sightings if kind == "jaeger" else tempo_sightings
    path, parameters = ask(question, now)

    def first(answer: Any) -> tuple[Sighting, ...]:
        found = sorted(read(answer, question.newest))
        return tuple(sighting for _, sighting in found[:_MOST])

    return await asked(client, kind, url + path, parameters, first)


def jaeger_request(question: Question, now: float) -> tuple[str, Mapping[str, str]]:
    """Path and parameters of Jaeger's search; its times are in microseconds."""
    parameters = {
        "service": str(question.service),
        "tags": json.dumps(dict(question.tags)),
        "start": str(int((now - question.window) * 1e6)),
        "end": str(int(now * 1e6)),
        "limit": str(_LIMIT),
    }
    if question.min_seconds:
        parameters["minDuration"] = f"{question.min_seconds * 1e6:.0f}us"
    return "/api/traces", parameters


def jaeger_sightings(
    answer: Mapping[str, Any], newest: bool = False
) -> Iterator[tuple[float, Sighting]]:
    """Negative duration (or start) and sighting of each trace in an answer."""
    for item in answer["data"] or ():
        spans = item["spans"]
        tags = {t["key"]: t["value"] for s in spans for t in s.get("tags") or ()}
        order = max(span["startTime" if newest else "duration"] for span in spans)
        request = str(tags.get(semconv.SAAS_REQUEST_ID, ""))
        yield -float(order), Sighting(str(item["traceID"]).zfill(32), request)


def tempo_request(question: Question, now: float) -> tuple[str, Mapping[str, str]]:
    """Path and parameters of Tempo's search, in TraceQL."""
    conditions = [f"resource.service.name = {_quoted(str(question.service))}"]
    conditions += [_condition(name, value) for name, value in question.tags.items()]
    if question.min_seconds:
        conditions.append(f"span:duration > {question.min_seconds * 1e3:.0f}ms")
    query = f"{{ {' && '.join(conditions)} }} | select(span.{semconv.SAAS_REQUEST_ID})"
    start, end = str(int(now - question.window)), str(int(now) + 1)
    return "/api/search", {"q": query, "start": start, "end": end, "limit": str(_LIMIT)}


def _condition(name: str, value: str) -> str:
    """Jaeger's tag `error` is a status in TraceQL; what looks like a number may be one or a text."""
    if name == "error":
        return "span:status = error" if value == "true" else "span:status != error"
    text = f"span.{name} = {_quoted(value)}"
    return f"(span.{name} = {value} || {text})" if _INTEGER.fullmatch(value) else text


def _quoted(text: str) -> str:
    """A string of TraceQL, which has Go's escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def tempo_sightings(
    answer: Mapping[str, Any], newest: bool = False
) -> Iterator[tuple[float, Sighting]]:
    """Negative duration (or start) and sighting of each trace in an answer."""
    for item in answer.get("traces") or ():
        spans = [span for group in item.get("spanSets") or () for span in group["spans"]]
        attributes = {a["key"]: a["value"] for s in spans for a in s.get("attributes") or ()}
        request = str(attributes.get(semconv.SAAS_REQUEST_ID, {}).get("stringValue", ""))
        yield (
            -float(item.get("startTimeUnixNano" if newest else "durationMs", 0)),
            Sighting(f"{int(item['traceID'], 16):032x}", request),
        )
