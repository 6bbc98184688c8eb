"""OpenTelemetry's own settings of HTTP servers, where no official middleware stands to follow them.

Which URLs leave no telemetry, and which headers a server span carries. What is not set costs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.instrumentation.asgi import (
    collect_custom_headers_attributes,
    get_host_port_url_tuple,
)
from opentelemetry.trace import Span
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE,
    ExcludeList,
    SanitizeValue,
    get_custom_headers,
    get_excluded_urls,
    normalise_request_header_name,
    normalise_response_header_name,
)

from otel_shim._guard import guarded, logger

Message = MutableMapping[str, Any]
Excluded = Callable[[MutableMapping[str, Any]], bool]


def excluded(framework: str) -> Excluded | None:
    """Whether the request of a scope is to leave no telemetry; None where that is so for none."""
    urls = _excluded_urls(framework, os.environ)
    return None if urls is None else _checked(urls)


def _excluded_urls(framework: str, environ: Mapping[str, str]) -> ExcludeList | None:
    """What an operator leaves out by the framework's variable, else by the general one."""
    general = "OTEL_PYTHON_EXCLUDED_URLS"
    own = f"OTEL_PYTHON_{framework}_EXCLUDED_URLS"
    if not environ.get(own, environ.get(general)):
        return None
    try:
        return get_excluded_urls(framework)
    except re.error as error:
        name = own if own in environ else general
        logger.error("%s: %s; write regular expressions. No URL is left out.", name, error)
        return None


def _checked(urls: ExcludeList) -> Excluded:
    @guarded(default=False)
    def is_excluded(scope: MutableMapping[str, Any]) -> bool:
        _, _, url = get_host_port_url_tuple(scope)  # type: ignore[no-untyped-call]
        return urls.url_disabled(url)

    return is_excluded


@dataclass(frozen=True)
class CapturedHeaders:
    """The headers that an operator wants on server spans, as regular expressions."""

    request: list[str]
    response: list[str]
    sanitize: SanitizeValue

    @guarded(default=None)
    def put(self, span: Span | None, scope: Message, response: Message) -> None:
        """Put the headers of a request, and of its response that starts, on its span."""
        if span is None or not span.is_recording():
            return
        for part, names, normalise in (
            (scope, self.request, normalise_request_header_name),
            (response, self.response, normalise_response_header_name),
        ):
            if names:
                found = collect_custom_headers_attributes(
                    dict(part), self.sanitize, names, normalise
                )
                span.set_attributes(found)


def captured_headers() -> CapturedHeaders | None:
    """The headers that are asked for; None where none are."""
    request = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST)
    response = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE)
    hidden = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS)
    if not request and not response:
        return None
    return CapturedHeaders(request, response, SanitizeValue(hidden))
