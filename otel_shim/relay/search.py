"""Traces from a trace backend, where Prometheus has no exemplar: Jaeger's and Tempo's search."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import httpx

from otel_shim import _semconv as semconv
from otel_shim.relay.asking import asked
from otel_shim.relay.model import Question, Sighting

LONGEST = {"jaeger": float("inf"), "tempo": 168 * 3600.0 - 60.0}
"""The longest window, in seconds, of a search that each takes: Tempo's `search.max_duration`, with a margin."""
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_LIMIT = 20
_WIDE = 200
_ERROR = "error"
_MOST = 3
Request = tuple[str, Mapping[str, str]]
"""Path and parameters."""
_Read = Callable[[Any, Question], Iterable[tuple[float, Sighting]]]


async def find(
    client: httpx.AsyncClient, kind: str, url: str, question: Question, now: float
) -> tuple[Sighting, ...]:
    """The traces that show the fault, the longest (or newest) first. Raises LookupFailed."""
    if kind == "tempo":
        path, parameters = tempo_request(question, now)
        return await asked(
            client, kind, url + path, parameters, partial(_first, tempo_sightings, question)
        )
    path, parameters = jaeger_request(question, now)
    read = partial(_first, jaeger_sightings, question)
    found = await asked(client, kind, url + path, parameters, read)
    if found or _ERROR not in question.tags:
        return found
    # Jaeger's storage in memory (1.76) reads the text "true" as false and finds no error by this tag.
    path, parameters = jaeger_request(_any_status(question), now, _WIDE)
    read = partial(_first, _jaeger_failures, question)
    return await asked(client, kind, url + path, parameters, read)


def _first(read: _Read, question: Question, answer: Any) -> tuple[Sighting, ...]:
    found = sorted(read(answer, question))
    return tuple(sighting for _, sighting in found[:_MOST])


def _any_status(question: Question) -> Question:
    tags = {name: value for name, value in question.tags.items() if name != _ERROR}
    return replace(question, tags=tags)


def jaeger_request(question: Question, now: float, limit: int = _LIMIT) -> Request:
    """Path and parameters of Jaeger's search; its times are in microseconds."""
    parameters = {
        "service": str(question.service),
        "tags": json.dumps({**question.resource, **question.tags}),
        "start": str(int((now - question.window) * 1e6)),
        "end": str(int(now * 1e6)),
        "limit": str(limit),
    }
    if question.min_seconds:
        parameters["minDuration"] = f"{question.min_seconds * 1e6:.0f}us"
    return "/api/traces", parameters


def jaeger_sightings(
    answer: Mapping[str, Any], question: Question
) -> Iterator[tuple[float, Sighting]]:
    """Negative duration (or start) and sighting of each trace in an answer."""
    for item in answer["data"] or ():
        spans = item["spans"]
        order = max(span["startTime" if question.newest else "duration"] for span in spans)
        requests = (_tags(span).get(semconv.SAAS_REQUEST_ID, "") for span in spans)
        request = next(filter(None, requests), "")
        yield -float(order), Sighting(str(item["traceID"]).zfill(32), request)


def _jaeger_failures(
    answer: Mapping[str, Any], question: Question
) -> Iterator[tuple[float, Sighting]]:
    """Those with a span that has all the tags, and that the question means by `error`."""
    wanted = question.tags.items()
    shown = [
        item
        for item in answer["data"] or ()
        if any(wanted <= {_ERROR: "false", **_tags(span)}.items() for span in item["spans"])
    ]
    return jaeger_sightings({"data": shown}, question)


def _tags(span: Mapping[str, Any]) -> Mapping[str, str]:
    """The tags as texts, as they are written in a question."""
    return {
        tag["key"]: json.dumps(tag["value"])
        if isinstance(tag["value"], bool)
        else str(tag["value"])
        for tag in span.get("tags") or ()
    }


def tempo_request(question: Question, now: float) -> Request:
    """Path and parameters of Tempo's search, in TraceQL."""
    conditions = [f"resource.service.name = {_quoted(str(question.service))}"]
    conditions += [f"resource.{name} = {_quoted(v)}" for name, v in question.resource.items()]
    conditions += [_condition(name, value) for name, value in question.tags.items()]
    if question.min_seconds:
        conditions.append(f"span:duration > {question.min_seconds * 1e3:.0f}ms")
    query = f"{{ {' && '.join(conditions)} }} | select(span.{semconv.SAAS_REQUEST_ID})"
    start, end = str(int(now - question.window)), str(int(now) + 1)
    return "/api/search", {"q": query, "start": start, "end": end, "limit": str(_LIMIT)}


def _condition(name: str, value: str) -> str:
    """Jaeger's tag `error` is a status in TraceQL; what looks like a number may be one or a text."""
    if name == _ERROR:
        return "span:status = error" if value == "true" else "span:status != error"
    text = f"span.{name} = {_quoted(value)}"
    return f"(span.{name} = {value} || {text})" if _INTEGER.fullmatch(value) else text


def _quoted(text: str) -> str:
    """A string of TraceQL, which has Go's escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def tempo_sightings(
    answer: Mapping[str, Any], question: Question
) -> Iterator[tuple[float, Sighting]]:
    """Negative duration (or start) and sighting of each trace in an answer."""
    for item in answer.get("traces") or ():
        spans = [span for group in item.get("spanSets") or () for span in group["spans"]]
        attributes = {a["key"]: a["value"] for s in spans for a in s.get("attributes") or ()}
        request = str(attributes.get(semconv.SAAS_REQUEST_ID, {}).get("stringValue", ""))
        yield (
            -float(item.get("startTimeUnixNano" if question.newest else "durationMs", 0)),
            Sighting(f"{int(item['traceID'], 16):032x}", request),
        )
