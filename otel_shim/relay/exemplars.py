"""Traces from Prometheus: `GET /api/v1/query_exemplars`, also of Mimir and Grafana Cloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx

from otel_shim import _semconv as semconv
from otel_shim.relay.asking import asked
from otel_shim.relay.model import Question, Sighting

_TRACE = "trace_id"
_REQUEST = ("request_id", semconv.SAAS_REQUEST_ID, semconv.SAAS_REQUEST_ID.replace(".", "_"))
_MOST = 3


async def find(
    client: httpx.AsyncClient, url: str, question: Question, now: float
) -> tuple[Sighting, ...]:
    """The exemplars that show the fault, a typical one first. Raises LookupFailed.

    The order depends on the exemplars alone, so that two relays name the same trace.
    """
    parameters = {
        "query": str(question.exemplars),
        "start": f"{now - question.window:.3f}",
        "end": f"{now:.3f}",
    }
    address = f"{url}/api/v1/query_exemplars"
    return await asked(client, "Prometheus", address, parameters, partial(read, question))


def read(question: Question, answer: Mapping[str, Any]) -> tuple[Sighting, ...]:
    """The sightings that the question is after in an answer of the API."""
    return newest(answer) if question.newest else chosen(answer, question.above)


def chosen(answer: Mapping[str, Any], above: float) -> tuple[Sighting, ...]:
    """The sightings in an answer of the API: the median, then the largest.

    The largest alone may be an outlier from before the fault.
    """
    found = [sighting for _, sighting in sorted(_values(answer, above))]
    typical = found[(len(found) - 1) // 2 :][:1]
    return tuple(dict.fromkeys([*typical, *found]))[:_MOST]


def newest(answer: Mapping[str, Any]) -> tuple[Sighting, ...]:
    """The sightings in an answer of the API, the newest first."""
    found = [
        (-float(exemplar["timestamp"]), _sighting(exemplar["labels"]))
        for series in answer["data"]
        for exemplar in series["exemplars"]
        if exemplar["labels"].get(_TRACE)
    ]
    return tuple(dict.fromkeys(sighting for _, sighting in sorted(found)))[:_MOST]


def _sighting(labels: Mapping[str, str]) -> Sighting:
    request = next((labels[name] for name in _REQUEST if labels.get(name)), "")
    return Sighting(labels[_TRACE], request)


def _values(answer: Mapping[str, Any], above: float) -> Iterator[tuple[float, Sighting]]:
    for series in answer["data"]:
        for exemplar in series["exemplars"]:
            labels, value = exemplar["labels"], float(exemplar["value"])
            if labels.get(_TRACE) and value > above:
                yield -value, _sighting(labels)
