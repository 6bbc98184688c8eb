"""httpx and httpx2: what the official instrumentation records of a call, for a part of what it takes.

The official instrumentor stays: its settings, hooks, excluded URLs, captured headers, and how it is switched
off. Only what it does around a call is replaced, where nothing of that kind was asked for and the stable
conventions alone are recorded. What is the same from call to call is worked out once, by its own functions;
what is unusual is left to them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from timeit import default_timer
from typing import Any

import wrapt
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.sdk.trace import Span
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_RESPONSE_STATUS_CODE
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_FULL
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from otel_shim import _sdk_compat
from otel_shim._guard import guarded
from otel_shim._sdk_compat import light_spans
from otel_shim.model import Scalar

_INSTRUMENTATION = "opentelemetry.instrumentation.httpx"
_ASKED_FOR = (
    "request_hook",
    "response_hook",
    "async_request_hook",
    "async_response_hook",
    "captured_request_headers",
    "captured_response_headers",
    "duration_histogram_old",
)
"""Settings with which the official way is taken."""
_MOST_REMEMBERED = 2000
_NO_MORE: Mapping[str, Any] = {}
_About = tuple[str, dict[str, Scalar]]


def install() -> None:
    """Take the place of what the official instrumentation does around a call, when it is loaded."""
    wrapt.register_post_import_hook(_replace, _INSTRUMENTATION)


@guarded(default=None)
def _replace(module: Any) -> None:
    parts = _sdk_compat.HttpxParts(module)
    calls = Calls(parts)
    sync, asynchronous = parts.wrapper, parts.async_wrapper

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any, **settings: Any) -> Any:
        call = calls.begin(args, kwargs, settings)
        if call is None:
            return sync(wrapped, instance, args, kwargs, **settings)
        return call.run(wrapped)

    async def async_wrapper(
        wrapped: Any, instance: Any, args: Any, kwargs: Any, **settings: Any
    ) -> Any:
        call = calls.begin(args, kwargs, settings)
        if call is None:
            return await asynchronous(wrapped, instance, args, kwargs, **settings)
        return await call.run_async(wrapped)

    parts.replace(functools.wraps(sync)(wrapper), functools.wraps(asynchronous)(async_wrapper))


class Calls:
    """Makes calls, and remembers what is the same for many."""

    def __init__(self, parts: _sdk_compat.HttpxParts) -> None:
        self.parts = parts
        self._about: dict[tuple[Any, ...], _About] = {}
        self._series: dict[tuple[Any, ...], _sdk_compat.Series] = {}

    @guarded(default=None)
    def begin(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Call | None:
        """A call that starts; None where it is left to the official instrumentation."""
        if kwargs or len(args) != 1 or not self._is_plain(settings):
            return None
        request, module = args[0], settings["module"]
        if type(request) is not module.Request or not is_http_instrumentation_enabled():
            return None
        url = request.url
        key = (module.__name__, request.method, url.host, url.port)
        name, same = self._about.get(key) or self._learn(key, module, request)
        text = str(url)
        if "@" in text or "?" in text:
            text = self.parts.redacted(text)
        attributes = {**same, URL_FULL: text}
        span = light_spans.start_span(settings["tracer"], name, SpanKind.CLIENT, attributes)
        return Call(self, settings, request, span, key)

    def _is_plain(self, settings: Mapping[str, Any]) -> bool:
        if any(settings.get(name) for name in _ASKED_FOR):
            return False
        histogram = settings["duration_histogram_new"]
        return histogram is not None and not self.parts.excludes(settings["excluded_urls"])

    def _learn(self, key: tuple[Any, ...], module: Any, request: Any) -> _About:
        """The name of a span to a server, and its attributes but for the URL."""
        attributes, _ = self.parts.about_request(module, request.method, request.url)
        clean = {name: value for name, value in attributes.items() if type(value) in (str, int)}
        found = self.parts.span_name(request.method), clean
        if len(self._about) < _MOST_REMEMBERED:
            self._about[key] = found
        return found

    def series(
        self, settings: Mapping[str, Any], request: Any, answer: tuple[Any, ...]
    ) -> _sdk_compat.Series:
        """The series of a call's duration, by all that its labels are made of."""
        histogram, *_, status, version = answer
        found = self._series.get(answer)
        if found is None:
            labels = self.parts.labels(
                settings["module"], request.method, request.url, status, version
            )
            found = _sdk_compat.Series(histogram, labels)
            if len(self._series) < _MOST_REMEMBERED:
                self._series[answer] = found
        return found


class Call:
    """One call, from its start to its answer."""

    __slots__ = ("_at", "_calls", "_key", "_request", "_settings", "_span")

    def __init__(
        self,
        calls: Calls,
        settings: Mapping[str, Any],
        request: Any,
        span: Any,
        key: tuple[Any, ...],
    ) -> None:
        self._calls = calls
        self._settings = settings
        self._request = request
        self._span = span
        self._key = key
        self._at = set_span_in_context(span)

    def run(self, send: Any) -> Any:
        """Send the request; what the transport raises passes unchanged."""
        token = attach(self._at)
        try:
            self._propagate()
            started = default_timer()
            response = send(self._request)
            self._answered(response, default_timer() - started)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            detach(token)
            self._end()
        return response

    async def run_async(self, send: Any) -> Any:
        """As ``run``."""
        token = attach(self._at)
        try:
            self._propagate()
            started = default_timer()
            response = await send(self._request)
            self._answered(response, default_timer() - started)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            detach(token)
            self._end()
        return response

    @guarded(default=None)
    def _propagate(self) -> None:
        self._calls.parts.inject(self._settings["module"], self._request)

    @guarded(default=None)
    def _end(self) -> None:
        """End the span; processors of the application are told, and may fail."""
        self._span.end()

    @guarded(default=None)
    def _answered(self, response: Any, seconds: float) -> None:
        status, version = response.status_code, response.http_version
        if 100 <= status < 400 and isinstance(self._span, Span):
            found: dict[str, Scalar] = {HTTP_RESPONSE_STATUS_CODE: status}
            if version:
                found[NETWORK_PROTOCOL_VERSION] = version.replace("HTTP/", "")
            _sdk_compat.stamp(self._span, found)
        else:
            self._calls.parts.answered(self._settings["module"], self._span, status, version)
        histogram = self._settings["duration_histogram_new"]
        answer = (histogram, *self._key, status, version)
        series = self._calls.series(self._settings, self._request, answer)
        series.record(max(seconds, 0), _NO_MORE, self._at)

    @guarded(default=None)
    def _failed(self, error: BaseException) -> None:
        """Note an error; what is none, as a cancellation, ends the span and no more."""
        if not isinstance(error, Exception):
            return
        response = getattr(error, "response", None)
        if isinstance(response, self._settings["module"].Response):
            status, version = response.status_code, response.http_version
            self._calls.parts.answered(self._settings["module"], self._span, status, version)
        self._span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        self._span.record_exception(error)
        self._span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
