"""Starlette without FastAPI: the official ASGI middleware around each application, inside our wrapper."""

from __future__ import annotations

import functools
from typing import Any

import wrapt
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE
from opentelemetry.trace import get_current_span

from otel_shim._guard import guarded
from otel_shim.capture.asgi import (
    RESOLUTION,
    STARTS,
    App,
    ASGIScope,
    Capture,
    Message,
    Receive,
    Send,
)

_FASTAPI_TRACED = "fastapi.telemetry"
_TRACED = "_otel_shim_traced"


def install(capture: Capture) -> None:
    """Take Starlette in when the application imports it."""
    wrapt.register_post_import_hook(
        lambda module: _wrap(module.Starlette, capture), "starlette.applications"
    )


@guarded(default=None)
def _wrap(app: Any, capture: Capture) -> None:
    handle = app.__call__

    async def call(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "lifespan" or RESOLUTION in scope
        ):  # FastAPI is a Starlette: it came first
            await handle(self, scope, receive, send)
            return
        traced = getattr(self, _TRACED, None)
        if traced is None:
            traced = _traced(functools.partial(handle, self))
            setattr(self, _TRACED, traced)
        scope.setdefault(
            _FASTAPI_TRACED, None
        )  # a FastAPI mounted below makes no second server span
        await capture.handle(traced, scope, receive, send)

    app.__call__ = functools.wraps(handle)(call)


def _traced(app: App) -> App:
    """The official middleware around an application that names the span by its route."""

    async def routed(scope: ASGIScope, receive: Receive, send: Send) -> None:
        async def respond(message: Message) -> None:
            if message["type"] in STARTS:
                _name(scope)
            await send(message)

        await app(scope, receive, respond)

    return OpenTelemetryMiddleware(
        routed,
        default_span_details=_details,
        exclude_spans=["receive", "send"],
        meter_provider=NoOpMeterProvider(),  # ours take the place of its metrics
    )


def _details(scope: ASGIScope) -> tuple[str, dict[str, Any]]:
    """The method alone: a path is no name, and may hold what must not be in one."""
    return str(scope.get("method", "WS")), {}


@guarded(default=None)
def _name(scope: ASGIScope) -> None:
    path = getattr(scope.get("route"), "path", None)
    if isinstance(path, str):
        route = scope.get("root_path", "").removesuffix("/") + path
        span = get_current_span()
        span.set_attribute(HTTP_ROUTE, route)
        span.update_name(f"{_details(scope)[0]} {route}")
