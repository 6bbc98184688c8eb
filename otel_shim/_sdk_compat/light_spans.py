"""Spans of ours for less than the SDK's own way takes.

The SDK cleans every attribute, and makes two bounded lists, three locks and two copies for each span. What
our captures start has clean attributes, and hardly ever an event or a link. The span is still one of the
SDK's: same class above, same fields, same processors. A trial at the first use compares both, field by
field; where they differ, or a setting could matter, the official way is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Tracer, _Span
from opentelemetry.sdk.trace._tracer_metrics import NoOpTracerMetrics, noop
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from otel_shim._guard import guarded
from otel_shim.model import Scalar

_EMPTY: Any = BoundedList(0)
"""What stands for no events and no links, until there is one."""
_NO_ATTRIBUTES = BoundedAttributes(immutable=True)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)


_CLEAN = (str, bool, int, float)


class LightSpan(_Span):
    """A span of the SDK whose parts are made when they are needed."""

    def __init__(  # noqa: PLR0917 - called once, for every span
        self,
        tracer: Any,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: BoundedAttributes,
    ) -> None:
        """``attributes`` hold no more than the limits allow, and nothing that has to be cleaned."""
        # The order of ``ReadableSpan`` and ``Span``: objects that share it share their keys.
        self._name = name
        self._context = context
        self._kind = kind
        self._instrumentation_info = tracer.instrumentation_info
        self._instrumentation_scope = tracer._instrumentation_scope
        self._parent = parent
        self._start_time = None
        self._end_time = None
        self._attributes = attributes
        self._events = _EMPTY
        self._links = _EMPTY
        self._resource = tracer.resource
        self._status = _UNSET
        self._sampler = tracer.sampler
        self._trace_config = None
        self._record_exception = True
        self._set_status_on_exception = True
        self._span_processor = tracer.span_processor
        self._limits = tracer._span_limits
        self._lock = threading.Lock()
        self._record_end_metrics = noop

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; what has nothing to be cleaned is not cleaned."""
        held: Any = self._attributes
        clean = type(key) is str and key and type(value) in _CLEAN
        if not clean or (held.maxlen is not None and len(held._dict) >= held.maxlen):
            return super().set_attribute(key, value)
        with self._lock:
            if self._end_time is None:
                with held._lock:
                    held._dict.pop(key, None)  # what was set last stands last
                    held._dict[key] = value
                return None
        return super().set_attribute(key, value)  # which says that it is too late

    def hold(self, links: Sequence[trace.Link]) -> None:
        """Have these links, before the start; invalid ones and those beyond the limit are dropped."""
        only = links[0] if len(links) == 1 else None
        if (
            only is None
            or only.attributes
            or not only.context.is_valid
            or self._limits.max_links == 0
        ):
            self._links = self._new_links(links)
            return
        only._attributes = _NO_ATTRIBUTES
        self._links = (only,)

    def _add_event(self, event: Any) -> None:
        with self._lock:
            if self._events is _EMPTY:
                self._events = self._new_events()  # type: ignore[no-untyped-call]
        super()._add_event(event)

    def _add_link(self, link: Any) -> None:
        with self._lock:
            if self._links is _EMPTY or type(self._links) is tuple:
                self._links = self._new_links(self._links)
        super()._add_link(link)


_UNSET = ReadableSpan("")._status


def start_span(
    tracer: trace.Tracer,
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, Scalar],
    context: Context | None = None,
    *,
    links: Sequence[trace.Link] = (),
    start_time: int | None = None,
) -> trace.Span:
    """Start a span with attributes that are clean: texts, numbers and truth values under texts.

    ``links`` are there when samplers and processors look. ``start_time`` is in nanoseconds since 1970,
    by default now.
    """
    if type(tracer) is trace.ProxyTracer:  # made before there was a provider
        tracer = tracer._tracer
    light = type(tracer) is Tracer
    span = _light(tracer, name, kind, attributes, context, links) if light else None
    if span is None:
        return tracer.start_span(name, context, kind, attributes, links, start_time=start_time)
    span.start(start_time, context)
    return span


@guarded(default=None)
def _light(  # noqa: PLR0917 - called once, for every span
    tracer: Any,
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, Scalar],
    context: Context | None,
    links: Sequence[trace.Link],
) -> LightSpan | None:
    """A span that has not started; None where only the official way may make it."""
    limits = tracer._span_limits
    most = limits.max_span_attributes
    plain = limits.max_span_attribute_length is None and (most is None or len(attributes) <= most)
    if not (plain and tracer._tracer_config.is_enabled and _is_as_known(tracer)):
        return None
    above: SpanContext | None = trace.get_current_span(context).get_span_context()
    if above is None or not above.is_valid:
        above = None
    if not _samples_all(tracer.sampler, above):
        return None
    own = _own_context(tracer.id_generator, above)
    span = LightSpan(tracer, name, own, above, kind, _bounded(attributes, most))
    if links:
        span.hold(links)
    return span


def _samples_all(sampler: Any, above: SpanContext | None) -> bool:
    """Whether it is certain that a span is sampled, and that the sampler adds nothing to it.

    One that decides by the trace id is not asked: the official way would ask again, for another id.
    """
    if type(sampler) is not ParentBased:
        return sampler is ALWAYS_ON
    known: Any = sampler
    if above is None:
        return known._root is ALWAYS_ON
    if not above.trace_flags.sampled:
        return False
    delegate = known._remote_parent_sampled if above.is_remote else known._local_parent_sampled
    return delegate is ALWAYS_ON


def _own_context(ids: Any, above: SpanContext | None) -> SpanContext:
    if above is None:
        flags = _SAMPLED_RANDOM if ids.is_trace_id_random() else _SAMPLED
        return SpanContext(ids.generate_trace_id(), ids.generate_span_id(), False, flags)
    flags = _SAMPLED_RANDOM if above.trace_flags.random_trace_id else _SAMPLED
    return SpanContext(above.trace_id, ids.generate_span_id(), False, flags, above.trace_state)


def _bounded(attributes: Mapping[str, Scalar], most: int | None) -> BoundedAttributes:
    made: Any = BoundedAttributes.__new__(BoundedAttributes)
    made._dict = dict(attributes)
    made.maxlen = most
    made.dropped = 0
    made.max_value_len = None
    made._lock = threading.Lock()
    made._immutable = False
    bounded: BoundedAttributes = made
    return bounded


_shapes: dict[type, bool] = {}
"""By the type of the tracer's own measurements, whether the trial found the SDK as it is known here."""


def _is_as_known(tracer: Any) -> bool:
    kind = type(tracer._tracer_metrics)
    found = _shapes.get(kind)
    if found is None:
        found = _shapes[kind] = kind is NoOpTracerMetrics and bool(_try_out(tracer))
    return found


@guarded(default=False)
def _try_out(tracer: Any) -> bool:
    """Whether a span made here has the fields, of the same types, that the SDK gives to one."""
    given: dict[str, Any] = {"trial": True}
    context, limits = SpanContext(1, 1, False, _SAMPLED), tracer._span_limits
    official = _Span(
        "trial",
        context,
        sampler=tracer.sampler,
        resource=tracer.resource,
        attributes=given,
        kind=SpanKind.CLIENT,
        span_processor=tracer.span_processor,
        instrumentation_info=tracer.instrumentation_info,
        limits=limits,
        instrumentation_scope=tracer._instrumentation_scope,
        record_end_metrics=noop,
    )
    bounded = _bounded(given, limits.max_span_attributes)
    light = LightSpan(tracer, "trial", context, None, SpanKind.CLIENT, bounded)
    same = _fields(official) == _fields(light)
    return same and _fields(official._attributes) == _fields(bounded)


def _fields(made: Any) -> dict[str, type]:
    return {name: type(value) for name, value in vars(made).items()}
