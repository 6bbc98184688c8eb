"""Starlette without FastAPI: the official ASGI middleware around each application, inside our wrapper.

Also the routes: by which a span is named where the middleware cannot know, below plain Starlette and below
a mount, where FastAPI's official instrumentor knows the mount alone.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import wrapt
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.trace import SpanKind

from otel_shim._guard import guarded
from otel_shim.capture import http_settings, official
from otel_shim.capture.asgi import (
    RESOLUTION,
    App,
    ASGIScope,
    Capture,
    Receive,
    Send,
)
from otel_shim.capture.resolver import Resolution
from otel_shim.signals.metrics import MOUNTED

_FASTAPI_TRACED = "fastapi.telemetry"
_TRACED = "_otel_shim_traced"


def install(capture: Capture) -> None:
    """Take Starlette in when the application imports it."""
    wrapt.register_post_import_hook(
        lambda module: _wrap(module.Starlette, capture), "starlette.applications"
    )
    watch_routes()


def watch_routes() -> None:
    """Know the templates of mounts and routes; all that FastAPI needs of this where Starlette is switched off."""
    wrapt.register_post_import_hook(_watch_routes, "starlette.routing")
    wrapt.register_post_import_hook(_watch_included, "fastapi.routing")


@guarded(default=None)
def _wrap(app: Any, capture: Capture) -> None:
    handle = app.__call__
    excluded = http_settings.excluded("STARLETTE")

    async def call(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if RESOLUTION in scope or _is_fastapi(self.__class__):
            await handle(self, scope, receive, send)
            return
        if excluded is not None and capture.passes_by(scope, excluded):
            await capture.pass_by(functools.partial(handle, self), scope, receive, send)
            return
        traced = getattr(self, _TRACED, None)
        if traced is None:
            traced = _traced(functools.partial(handle, self))
            setattr(self, _TRACED, traced)
        ours = _FASTAPI_TRACED not in scope
        if ours:
            scope[_FASTAPI_TRACED] = None  # a FastAPI mounted below makes no second server span
        try:
            await capture.handle(traced, scope, receive, send)
        finally:
            if ours:  # a FastAPI that runs on this scope next makes its own
                scope.pop(_FASTAPI_TRACED, None)

    app.__call__ = functools.wraps(handle)(call)


@functools.cache
def _is_fastapi(kind: type) -> bool:
    """FastAPI is a Starlette too: traced already, or switched off."""
    return any(base.__module__ == "fastapi.applications" for base in kind.__mro__)


def _traced(app: App) -> App:
    """The official middleware around an application."""
    return OpenTelemetryMiddleware(
        app,
        default_span_details=_details,
        **official.options(),
    )


def _details(scope: ASGIScope) -> tuple[str, dict[str, Any]]:
    """The method alone: a path is no name, and may hold what must not be in one."""
    return str(scope.get("method", "WS")), {}


@guarded(default=None)
def _watch_routes(module: Any) -> None:
    """Look at each request where its route is known: after all middleware, before the endpoint."""
    for kind in (module.Route, module.WebSocketRoute):
        _watch(kind, _enter)
    _watch(module.Mount, _descend)


@guarded(default=None)
def _watch_included(module: Any) -> None:
    """FastAPI's included routes go past Starlette's; an older FastAPI has none of its own."""
    if "handle" in vars(module.APIRoute):
        _watch(module.APIRoute, _enter_included)


def _watch(kind: Any, look: Callable[[Any, ASGIScope], None]) -> None:
    handle = kind.handle

    def routed(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> Awaitable[None]:
        look(self, scope)
        handled: Awaitable[None] = handle(self, scope, receive, send)
        return handled

    kind.handle = functools.wraps(handle)(routed)


@guarded(default=None)
def _descend(mount: Any, scope: ASGIScope) -> None:
    """Remember the template of a mount: the root path has the values of its parameters."""
    if RESOLUTION in scope:
        scope[MOUNTED] = scope.get(MOUNTED, "") + mount.path


@guarded(default=None)
def _enter_included(route: Any, scope: ASGIScope) -> None:
    """Name the span by an included route, which does not pass where others do."""
    if _is_unnamed(scope):
        effective = scope.get("fastapi", {}).get("effective_route_context")
        if effective is not None and effective.original_route is route:
            _enter(effective, scope)


@guarded(default=None)
def _enter(route: Any, scope: ASGIScope) -> None:
    """Name the span by its route, and read who asks: middleware has left it in the scope by now."""
    resolution = scope.get(RESOLUTION)
    if not isinstance(resolution, Resolution):
        return
    if not hasattr(route, "dependant"):  # FastAPI's solver tells when who asks is known
        resolution.follow(scope)
        resolution.from_scope(path=True)
    root, span = resolution.inbound.root, resolution.span()
    if root is None or span is None or span.kind is not SpanKind.SERVER:
        return
    if _is_unnamed(scope):
        reached = scope.get(MOUNTED, "") + route.path
        root.reached(span, f"{_details(scope)[0]} {reached}", reached)


def _is_unnamed(scope: ASGIScope) -> bool:
    """Whether nobody else names the server span by its route.

    FastAPI's own telemetry does, and its official instrumentor, unless the route is below a mount.
    """
    if _FASTAPI_TRACED in scope:
        return scope[_FASTAPI_TRACED] is None
    return MOUNTED in scope
