"""OTLP bytes of spans and log records, for less CPU than the official encoder needs.

Most attributes are the same from one to the next: a route, a method, a host. Their bytes are remembered;
what is encoded is encoded by the official encoder, piece by piece. Pieces of a message may be put one
after the other (protobuf merges them), so the order of fields is free. Only the few fields that every
span has are written here.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry._logs import LogRecord
from opentelemetry.context import Context
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from otel_shim import _sdk_compat
from otel_shim._guard import guarded

_Encode = Callable[[Sequence[Any]], Any]
_REMEMBERED = 4096
_LONGEST = 256
"""Longest text that is remembered, in characters; with ``_REMEMBERED`` this bounds the memory."""
# Tags of fields, https://protobuf.dev/programming-guides/encoding/#structure
_FIELD_1, _FIELD_2 = b"\x0a", b"\x12"
_ATTRIBUTES_OF_SPAN, _ATTRIBUTES_OF_LOG = b"\x4a", b"\x32"
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_SHORT = [bytes((size,)) for size in range(0x80)]
_LINK = b"\x6a"
_START_AND_END = struct.Struct("<BQBQ")
_DOUBLE_OF_VALUE, _DOUBLE = 0x21, struct.Struct("<Bd")
_START, _END = 0x39, 0x41
_TIME, _OBSERVED, _ONE_TIME = 0x09, 0x59, struct.Struct("<BQ")
_TRACE_ID_OF_LOG, _SPAN_ID_OF_LOG, _BODY = b"\x4a\x10", b"\x52\x08", b"\x2a"


_BARE_CONTEXTS = {remote: SpanContext(1, 1, is_remote=remote) for remote in (False, True)}


@guarded(default=None)
def install() -> None:
    """Let OTLP over HTTP encode this way; the official way stays where it has other parts."""
    _sdk_compat.wrap_encoders(_first(spans().encode), _first(logs().encode))


def _first(ours: _Encode) -> Callable[[_Encode], _Encode]:
    """Encode our way, and the official way what ours fails on."""
    guarded_ours = guarded(default=None)(ours)
    return lambda official: lambda items: guarded_ours(items) or official(items)


class Encoded:
    """An export request as bytes, with the methods of the message that exporters call."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializePartialToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes."""
        return self._data

    SerializeToString = SerializePartialToString


class Kind(NamedTuple):
    """What differs between spans and log records."""

    official: _sdk_compat.Encoding
    tag: bytes
    """The tag of their field ``attributes``."""
    attributes: Callable[[Any], Mapping[str, Any] | None]
    body: Callable[[Any], bytes]
    """The bytes of an item but for its attributes."""
    resources: Callable[..., Any]
    scopes: Callable[..., Any]


def spans() -> Encoder:
    """An encoder of spans."""
    official = _sdk_compat.span_encoding()
    same = functools.lru_cache(_REMEMBERED)(
        functools.partial(_name_kind_flags_and_status, official)
    )
    flags = [_flags_of_link(official, remote) for remote in (False, True)]
    body = functools.partial(_span, official, same, flags)
    tag, attributes = _ATTRIBUTES_OF_SPAN, _sdk_compat.attributes
    return Encoder(Kind(official, tag, attributes, body, ResourceSpans, ScopeSpans))


def logs() -> Encoder:
    """An encoder of log records."""
    official = _sdk_compat.log_encoding()
    same = functools.lru_cache(_REMEMBERED)(functools.partial(_severity_and_flags, official))
    body = functools.partial(_log, official, same)
    tag = _ATTRIBUTES_OF_LOG
    return Encoder(Kind(official, tag, _attributes_of_log, body, ResourceLogs, ScopeLogs))


class Encoder:
    """Encodes batches of one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._remembered = functools.lru_cache(_REMEMBERED, typed=True)(self._attribute)

    def encode(self, items: Sequence[Any]) -> Encoded:
        """A request for all of them, by resource and by scope."""
        by_resource = _grouped(items, lambda item: item.resource)
        return Encoded(b"".join(framed(_FIELD_1, self._resource(of)) for of in by_resource))

    def _resource(self, items: Sequence[Any]) -> bytes:
        resource = items[0].resource
        encoded = self._kind.official.resource(resource)
        head = self._kind.resources(resource=encoded, schema_url=resource.schema_url or "")
        by_scope = _grouped(items, lambda item: item.instrumentation_scope)
        bodies = [framed(_FIELD_2, self._scope(of)) for of in by_scope]
        return b"".join([head.SerializePartialToString(), *bodies])

    def _scope(self, items: Sequence[Any]) -> bytes:
        scope = items[0].instrumentation_scope or None
        encoded = self._kind.official.scope(scope)
        head = self._kind.scopes(scope=encoded, schema_url=(scope and scope.schema_url) or "")
        bodies = [framed(_FIELD_2, self._item(item)) for item in items]
        return b"".join([head.SerializePartialToString(), *bodies])

    def _item(self, item: Any) -> bytes:
        parts = [self._kind.body(item)]
        for key, value in (self._kind.attributes(item) or {}).items():
            of = type(value)
            repeats = of is int or of is bool or (of is str and len(value) <= _LONGEST)
            encode = self._remembered if repeats and len(key) <= _LONGEST else self._attribute
            parts.append(encode(key, value))
        return b"".join(parts)

    def _attribute(self, key: str, value: Any) -> bytes:
        """One attribute as a field; nothing, after the official error, if it has no encoding."""
        plain = _plain(value) if type(key) is str and key and key.isascii() else None
        if plain is not None:
            pair = framed(_FIELD_1, key.encode("ascii")) + framed(_FIELD_2, plain)
            return framed(self._kind.tag, pair)
        pairs = self._kind.official.attributes({key: value})
        return b"".join(framed(self._kind.tag, pair.SerializePartialToString()) for pair in pairs)


def _plain(value: Any) -> bytes | None:
    """A value of the two kinds that differ from span to span, an id or a time; None for others."""
    if type(value) is str and value.isascii():
        return framed(_FIELD_1, value.encode("ascii"))
    return _DOUBLE.pack(_DOUBLE_OF_VALUE, value) if type(value) is float else None


def _span(
    official: _sdk_compat.Encoding,
    same: Callable[..., bytes],
    flags: Sequence[bytes],
    span: ReadableSpan,
) -> bytes:
    """A span but for its attributes; by hand where it has no more than what every span has."""
    own, parent = span.get_span_context(), span.parent
    links = _sdk_compat.bare_links(span)
    if own is None or own.trace_state or links is None:
        return _message(official, _Without(span))
    ids = [_TRACE_ID, own.trace_id.to_bytes(16, "big"), _SPAN_ID, own.span_id.to_bytes(8, "big")]
    if parent:
        ids += [_PARENT_ID, parent.span_id.to_bytes(8, "big")]
    if links:
        ids += [_link(flags, link) for link in links]
    times = _START_AND_END.pack(_START, span.start_time or 0, _END, span.end_time or 0)
    remote = parent is not None and parent.is_remote
    rest = span.name, span.kind, remote, span.status.status_code
    if len(span.name) > _LONGEST:
        return b"".join([*ids, times, _name_kind_flags_and_status(official, *rest)])
    return b"".join([*ids, times, same(*rest)])


def _link(flags: Sequence[bytes], to: SpanContext) -> bytes:
    """A link without attributes; the official encoder writes no trace state either."""
    ids = [_TRACE_ID, to.trace_id.to_bytes(16, "big"), _SPAN_ID, to.span_id.to_bytes(8, "big")]
    return framed(_LINK, b"".join([*ids, flags[bool(to.is_remote)]]))


def _flags_of_link(official: _sdk_compat.Encoding, remote: bool) -> bytes:
    """What is the same for all bare links: their flags."""
    context = _BARE_CONTEXTS[remote]
    span = ReadableSpan("", context, resource=Resource.get_empty(), links=[Link(context)])
    (message,) = official.item(span).links
    message.ClearField("trace_id")
    message.ClearField("span_id")
    return bytes(message.SerializePartialToString())


def _name_kind_flags_and_status(
    official: _sdk_compat.Encoding, name: str, kind: SpanKind, remote: bool, status: StatusCode
) -> bytes:
    """What is the same for many bare spans of a name: these four fields."""
    context = _BARE_CONTEXTS[remote]
    # Without a resource it would look for one, in threads, which an ending interpreter has not.
    span = ReadableSpan(
        name, context, context, Resource.get_empty(), kind=kind, status=Status(status)
    )
    message = official.item(span)
    for field in ("trace_id", "span_id", "parent_span_id"):
        message.ClearField(field)
    return bytes(message.SerializePartialToString())


def _log(
    official: _sdk_compat.Encoding, same: Callable[..., bytes], record: ReadableLogRecord
) -> bytes:
    """A log record but for its attributes; by hand where its body is text, as it nearly always is."""
    item = record.log_record
    body, name = item.body, item.event_name
    if type(body) is not str or len(name or "") + len(item.severity_text or "") > _LONGEST:
        return _message(official, _Without(record, log_record=_Without(item)))
    dropped, severity = record.dropped_attributes, (item.severity_number, item.severity_text)
    parts = [
        same(*severity, item.trace_flags, name, dropped),
        framed(_BODY, framed(_FIELD_1, body.encode("utf-8"))),
    ]
    if item.timestamp:
        parts.append(_ONE_TIME.pack(_TIME, item.timestamp))
    if item.observed_timestamp:
        parts.append(_ONE_TIME.pack(_OBSERVED, item.observed_timestamp))
    if item.trace_id:
        parts += [_TRACE_ID_OF_LOG, item.trace_id.to_bytes(16, "big")]
    if item.span_id:
        parts += [_SPAN_ID_OF_LOG, item.span_id.to_bytes(8, "big")]
    return b"".join(parts)


def _severity_and_flags(official: _sdk_compat.Encoding, *of: Any) -> bytes:
    """What is the same for many records: severity, flags, name, and how many attributes were dropped."""
    number, text, flags, name, dropped = of
    record = LogRecord(
        timestamp=0,
        observed_timestamp=0,
        context=Context(),
        severity_number=number,
        severity_text=text,
        body="",
        event_name=name,
    )
    record.trace_flags = flags
    message = official.item(_Without(None, log_record=record, dropped_attributes=dropped))
    message.ClearField("body")
    return bytes(message.SerializePartialToString())


def _attributes_of_log(record: ReadableLogRecord) -> Mapping[str, Any] | None:
    return record.log_record.attributes


def _message(official: _sdk_compat.Encoding, item: Any) -> bytes:
    return bytes(official.item(item).SerializePartialToString())


class _Without:
    """Something whose attributes are encoded elsewhere, with other values for some of its parts."""

    attributes: Mapping[str, Any] | None = None

    def __init__(self, whole: Any, **parts: Any) -> None:
        self._whole = whole
        vars(self).update(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def _grouped(items: Sequence[Any], key: Callable[[Any], object]) -> list[list[Any]]:
    """The items by the object they share; to compare resources by value costs more than to encode."""
    groups: dict[int, list[Any]] = {}
    for item in items:
        groups.setdefault(id(key(item)), []).append(item)
    return list(groups.values())


def framed(tag: bytes, message: bytes) -> bytes:
    """A message as a length-delimited field."""
    size = len(message)
    if size <= 0x7F:  # nearly always
        return tag + _SHORT[size] + message
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return tag + length + message
