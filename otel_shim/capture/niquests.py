"""niquests: one client span and one duration for each request, sync and async, by the HTTP conventions.

No official instrumentor exists. Like the official one of requests this wraps ``send``, so that redirects are
part of the request that they answer. A response that is read later (``multiplexed``) has no status yet when
its span ends, and no duration is recorded of it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, propagate, trace
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_SCHEME
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.http import get_excluded_urls, redact_url, sanitize_method

from otel_shim import _sdk_compat
from otel_shim._guard import guarded
from otel_shim.capture.patches import Patches
from otel_shim.model import Scalar
from otel_shim.signals.connectors import http_duration

_PORTS = {"http": 80, "https": 443}
_VERSIONS = {10: "1.0", 11: "1.1", 20: "2", 30: "3"}


class NiquestsInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments niquests, when the application imports it.

    ``instrument`` takes ``tracer_provider`` and ``meter_provider``; the global ones are the default.
    Addresses in ``OTEL_PYTHON_NIQUESTS_EXCLUDED_URLS`` are left alone.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("niquests >= 3.0, < 4",)

    def _instrument(self, **kwargs: Any) -> None:
        capture = Niquests(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))
        self._patches = Patches()
        self._patches.when_imported("niquests.sessions", "Session.send", capture.sent)
        self._patches.when_imported(
            "niquests.async_session", "AsyncSession.send", capture.async_sent
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()


class Niquests:
    """The wrappers around niquests' functions."""

    def __init__(
        self, tracers: trace.TracerProvider | None, meters: metrics.MeterProvider | None
    ) -> None:
        meters = meters or metrics.get_meter_provider()
        self.tracer = trace.get_tracer("otel_shim.niquests", tracer_provider=tracers)
        self.duration = http_duration(meters, "otel_shim.niquests")
        self._excluded = get_excluded_urls("NIQUESTS")

    def sent(
        self, wrapped: Any, _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``Session.send``."""
        request = self._begin(*args, **kwargs) if _sdk_compat.wants_http_spans() else None
        if request is None:
            return wrapped(*args, **kwargs)
        with request:
            response = wrapped(*args, **kwargs)
            request.answered(response)
        return response

    async def async_sent(
        self, wrapped: Any, _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``AsyncSession.send``."""
        request = self._begin(*args, **kwargs) if _sdk_compat.wants_http_spans() else None
        if request is None:
            return await wrapped(*args, **kwargs)
        with request:
            response = await wrapped(*args, **kwargs)
            request.answered(response)
        return response

    @guarded(default=None)
    def _begin(self, request: Any, **_: Any) -> Request | None:
        """Start a request; None where nothing is to be recorded of its address."""
        return None if self._excluded.url_disabled(request.url) else Request(self, request)


class Request:
    """One request; its span is current and other instrumentors are quiet while it is at work."""

    def __init__(self, capture: Niquests, prepared: Any) -> None:
        self._labels = _labels(prepared)
        method = str(self._labels[HTTP_REQUEST_METHOD])
        attributes = {**self._labels, URL_FULL: redact_url(prepared.url)}
        self._capture = capture
        self._span = capture.tracer.start_span(
            method if method != "_OTHER" else "HTTP", kind=SpanKind.CLIENT, attributes=attributes
        )
        self._stack = ExitStack()
        self._lazy = False
        self._prepared = prepared
        self._began = time.perf_counter()

    def __enter__(self) -> Request:
        self._start()
        return self

    @guarded(default=None)
    def _start(self) -> None:
        use = trace.use_span(self._span, record_exception=False, set_status_on_exception=False)
        self._stack.enter_context(use)
        propagate.inject(self._prepared.headers)
        self._stack.enter_context(suppress_http_instrumentation())

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._stack.close()
        self._end(error)

    @guarded(default=None)
    def answered(self, response: Any) -> None:
        """Take the answer in; one that is read later is left alone, for asking it would wait."""
        self._lazy = bool(getattr(response, "lazy", False))
        if self._lazy:
            return
        status = int(response.status_code)
        self._label(HTTP_RESPONSE_STATUS_CODE, status)
        version = _VERSIONS.get(getattr(response.raw, "version", None) or 0)
        if version is not None:
            self._label(NETWORK_PROTOCOL_VERSION, version)
        if status >= 400:
            self._fail(str(status))

    @guarded(default=None)
    def _end(self, error: BaseException | None) -> None:
        if error is not None:
            self._fail(type(error).__qualname__)
        self._span.end()
        if not self._lazy:
            seconds = time.perf_counter() - self._began
            context = trace.set_span_in_context(self._span)
            self._capture.duration.record(seconds, self._labels, context)

    def _fail(self, reason: str) -> None:
        self._label(ERROR_TYPE, reason)
        self._span.set_status(Status(StatusCode.ERROR))

    def _label(self, key: str, value: Scalar) -> None:
        self._labels[key] = value
        self._span.set_attribute(key, value)


def _labels(prepared: Any) -> dict[str, Scalar]:
    parts = urlsplit(prepared.url)
    found: dict[str, Scalar] = {
        HTTP_REQUEST_METHOD: sanitize_method(str(prepared.method).strip()),
        SERVER_ADDRESS: parts.hostname or "",
        URL_SCHEME: parts.scheme,
    }
    port = parts.port or _PORTS.get(parts.scheme)
    return found if port is None else {**found, SERVER_PORT: port}
