"""What the tests of the relay send it, and the backends it asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx

from otel_shim.relay.lookup import Lookup
from otel_shim.relay.measures import Measures
from otel_shim.relay.memory import Memory
from otel_shim.relay.model import Settings
from otel_shim.relay.relaying import Relaying

Handler = Callable[[httpx.Request], httpx.Response]
TRACE = "0af7651916cd43dd8448eb211c80319c"
LABELS = {"alertname": "ApiServerErrors", "service": "api", "endpoint": "GET /a"}


def alert(ends_in: float = 240.0, started: datetime | None = None, **annotations: Any) -> Any:
    """An alert as Prometheus sends it; `ends_in` seconds from now, negative: resolved."""
    now = datetime.now(timezone.utc)
    return {
        "labels": dict(LABELS),
        "annotations": {"summary": "s", "relay_exemplars": "m_bucket", **annotations},
        "startsAt": (started or now).isoformat().replace("+00:00", "Z"),
        "endsAt": (now + timedelta(seconds=ends_in)).isoformat(),
        "generatorURL": "http://prometheus.example",
    }


def answer_of(*found: tuple[float, str, str]) -> Any:
    """An answer of query_exemplars with (value, trace, request)."""
    items = [
        {"labels": {"trace_id": t, "request_id": r}, "value": str(v), "timestamp": 1.0}
        for v, t, r in found
    ]
    return {"status": "success", "data": [{"seriesLabels": {}, "exemplars": items}]}


def settings(**given: Any) -> Settings:
    """Settings with both backends, and what a test says."""
    usual = {"prometheus": "http://prometheus", "traces": "http://jaeger", "traces_kind": "jaeger"}
    link = "http://jaeger/trace/{trace_id}"
    return Settings(("http://am",), trace_link=link, state=Path(), **{**usual, **given})


def relaying(handler: Handler, memory: Memory, **given: Any) -> tuple[Relaying, Measures]:
    """The relay's heart over backends that answer with a handler."""
    chosen, measures = settings(**given), Measures()
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return Relaying(chosen, Lookup(chosen, client, measures), memory, measures), measures


async def passed_on(relay: Relaying, *batch: Any) -> list[Any]:
    """What comes out for a batch."""
    prepared = await relay.prepare(json.dumps(batch).encode())
    assert prepared.alerts == len(batch)
    result: list[Any] = json.loads(prepared.body)
    return result


def with_exemplar(request: httpx.Request) -> httpx.Response:
    """Prometheus knows a trace."""
    return httpx.Response(200, json=answer_of((0.4, TRACE, "req-1")))


def failing(request: httpx.Request) -> httpx.Response:
    """A backend that is down."""
    raise httpx.ConnectError("refused", request=request)
