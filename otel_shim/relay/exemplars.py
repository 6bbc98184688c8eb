"""Traces from Prometheus: `GET /api/v1/query_exemplars`, also of Mimir and Grafana Cloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from otel_shim import _semconv as semconv
from otel_shim.relay.model import LookupFailed, Question, Sighting

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
    try:
        answer = await client.get(f"{url}/api/v1/query_exemplars", params=parameters)
        answer.raise_for_status()
        found = answer.json()
        return newest(found) if question.newest else chosen(found, question.above)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LookupFailed(f"Prometheus: {type(error).__name__}") from error


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
