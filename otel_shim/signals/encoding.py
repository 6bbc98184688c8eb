"""OTLP bytes of spans, for less CPU than the official encoder needs.

Most attributes are the same from span to span: a route, a method, a host. Their bytes are remembered;
whatever is encoded is encoded by the official encoder, piece by piece. Pieces of a message may be put
one after the other (protobuf merges them), and that is all that is assumed here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.sdk.trace import ReadableSpan

from otel_shim import _sdk_compat
from otel_shim._guard import guarded

_REMEMBERED = 4096
_LONGEST = 256
"""Longest text that is remembered, in characters; with ``_REMEMBERED`` this bounds the memory."""
_FIELD_1, _FIELD_2, _FIELD_9 = b"\x0a", b"\x12", b"\x4a"
"""Tags of length-delimited fields, https://protobuf.dev/programming-guides/encoding/#structure"""


@guarded(default=None)
def install() -> None:
    """Let OTLP over HTTP encode spans this way; the official way stays where it has other parts."""
    _sdk_compat.use_span_encoder(SpanEncoder(_sdk_compat.span_encoding()).encode)


class Encoded:
    """An ``ExportTraceServiceRequest`` as bytes, with the methods of the message that exporters call."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializePartialToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes."""
        return self._data

    SerializeToString = SerializePartialToString


class SpanEncoder:
    """Encodes batches of spans with the parts of the official encoder."""

    def __init__(self, official: _sdk_compat.SpanEncoding) -> None:
        self._official = official
        self._remembered = functools.lru_cache(_REMEMBERED, typed=True)(self._attribute)

    def encode(self, spans: Sequence[ReadableSpan]) -> Encoded:
        """A request for all of them, in the order of their resources and scopes."""
        by_resource = _grouped(spans, lambda span: span.resource)
        return Encoded(b"".join(framed(_FIELD_1, self._resource(of)) for of in by_resource))

    def _resource(self, spans: Sequence[ReadableSpan]) -> bytes:
        resource = spans[0].resource
        head = ResourceSpans(
            resource=self._official.resource(resource), schema_url=resource.schema_url
        )
        by_scope = _grouped(spans, lambda span: span.instrumentation_scope)
        bodies = [framed(_FIELD_2, self._scope(of)) for of in by_scope]
        return b"".join([head.SerializePartialToString(), *bodies])

    def _scope(self, spans: Sequence[ReadableSpan]) -> bytes:
        scope = spans[0].instrumentation_scope
        schema_url = scope.schema_url if scope else None
        head = ScopeSpans(scope=self._official.scope(scope), schema_url=schema_url or "")
        bodies = [framed(_FIELD_2, b"".join(self._span(span))) for span in spans]
        return b"".join([head.SerializePartialToString(), *bodies])

    def _span(self, span: ReadableSpan) -> Iterator[bytes]:
        yield self._official.span(_WithoutAttributes(span)).SerializePartialToString()
        for key, value in (_sdk_compat.attributes(span) or {}).items():
            kind = type(value)
            repeats = kind is int or kind is bool or (kind is str and len(value) <= _LONGEST)
            yield self._remembered(key, value) if repeats else self._attribute(key, value)

    def _attribute(self, key: str, value: Any) -> bytes:
        """One attribute as a field of a span; nothing, after the official error, if it has no encoding."""
        pairs = self._official.attributes({key: value})
        return b"".join(framed(_FIELD_9, pair.SerializePartialToString()) for pair in pairs)


class _WithoutAttributes:
    """A span whose attributes are encoded elsewhere."""

    __slots__ = ("_span",)
    attributes: Mapping[str, Any] | None = None

    def __init__(self, span: ReadableSpan) -> None:
        self._span = span

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)


def _grouped(
    spans: Sequence[ReadableSpan], key: Callable[[ReadableSpan], object]
) -> list[list[ReadableSpan]]:
    """The spans by the object they share; comparing resources by value costs more than encoding a span."""
    groups: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        groups.setdefault(id(key(span)), []).append(span)
    return list(groups.values())


def framed(tag: bytes, message: bytes) -> bytes:
    """A message as a length-delimited field."""
    size = len(message)
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return tag + length + message
