"""The official ASGI middleware, and FastAPI's official instrumentor that puts it into applications.

What they say otherwise than FastAPI's own telemetry, so that a server span has the same attributes
whichever made it; one server span a request, however many applications are mounted in each other; and none
of background tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import wrapt
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import Span
from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS, CLIENT_PORT
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.trace import Span as ApiSpan

from otel_shim import _sdk_compat
from otel_shim._guard import guarded
from otel_shim.capture.asgi import RESOLUTION, ASGIScope, Receive, Send
from otel_shim.capture.resolver import Resolution

_ABOUT_THE_CLIENT = (CLIENT_ADDRESS, CLIENT_PORT, USER_AGENT_ORIGINAL)
"""What FastAPI's own telemetry leaves out: it tells people apart without their consent."""
_ONCE = "_otel_shim_once"
_PATCHED = "_otel_original_call"
"""Where the instrumentor keeps what a background task did before."""


def options() -> dict[str, Any]:
    """One server span a request, with the attributes of FastAPI's own telemetry; our own metrics."""
    return {
        "exclude_spans": ["receive", "send"],
        "server_request_hook": align,
        "meter_provider": NoOpMeterProvider(),  # ours know role and plan
    }


@guarded(default=None)
def align(span: ApiSpan, scope: ASGIScope) -> None:
    """Give a server span of the official middleware the attributes that FastAPI's own telemetry has."""
    if not isinstance(span, Span):  # not recorded
        return
    _sdk_compat.remove_attributes(span, _ABOUT_THE_CLIENT)
    server = scope.get("server")
    if server:
        span.set_attribute(SERVER_ADDRESS, server[0])  # the middleware adds the port to it


def instrument(app: Any) -> Callable[[], None]:
    """Instrument one of FastAPI's applications by its official instrumentor; gives what undoes it."""
    instrumentor: Any = import_module("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor
    built = app.middleware_stack
    no_spans_of_background_tasks()
    instrumentor.instrument_app(app, **options())
    app.middleware_stack = None  # it is built anew, with the middleware in it

    def undo() -> None:
        instrumentor.uninstrument_app(app)
        app.middleware_stack = built

    return undo


@guarded(default=None)
def once_a_request() -> None:
    """Let the middleware of a mounted application make no span: the request has its server span."""
    handle = OpenTelemetryMiddleware.__call__
    if hasattr(handle, _ONCE):
        return

    async def call(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> None:
        inner = self.app if _is_settled(scope) else functools.partial(handle, self)
        await inner(scope, receive, send)

    setattr(call, _ONCE, True)
    OpenTelemetryMiddleware.__call__ = functools.wraps(handle)(call)  # type: ignore[method-assign]


def _is_settled(scope: ASGIScope) -> bool:
    """Whether a request has its server span, or is to have none: an application above excludes its URL."""
    if RESOLUTION not in scope:
        return False
    found = scope[RESOLUTION]
    return found is None or (isinstance(found, Resolution) and found.inbound.root is not None)


def no_spans_of_background_tasks() -> None:
    """Let the official instrumentor leave background tasks alone, as FastAPI's own telemetry does.

    Below a span of its own, an operation of a background task would be a part of the request, not a job. The
    instrumentor patches what it does not find patched.
    """
    wrapt.register_post_import_hook(_take_background_tasks, "starlette.background")


@guarded(default=None)
def _take_background_tasks(module: Any) -> None:
    task = module.BackgroundTask
    if not hasattr(task, _PATCHED):
        setattr(task, _PATCHED, task.__call__)
