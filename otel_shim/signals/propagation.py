"""Trace context from callers, taken only as far as they are trusted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_shim import _sdk_compat
from otel_shim import context as identity_context
from otel_shim._guard import guarded

_WELL_KNOWN = (TraceContextTextMapPropagator, W3CBaggagePropagator)
_KEEPS = "_otel_shim_keeps_the_edge"


class EdgePropagator(TextMapPropagator):
    """The configured propagator, with the caller of a request judged while its headers are read.

    From a caller whose identity is not trusted the server span is marked as an edge; from one whose
    trace is not, the trace is started anew and linked. Nothing else is changed, in either direction.
    """

    def __init__(self, delegate: TextMapPropagator) -> None:
        self._delegate = delegate
        self._headers = _headers_of(delegate)

    def reads(self, headers: Collection[bytes]) -> bool:
        """Whether something may be read from headers of these names, in lower case."""
        return self._headers is None or not self._headers.isdisjoint(headers)

    @property
    def is_w3c(self) -> bool:
        """Whether ``traceparent`` and ``tracestate``, and nothing else, say which span a caller is."""
        return self._headers is not None and b"traceparent" in self._headers

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """The caller's trace context, as far as it may be used."""
        inbound = identity_context.inbound_of(context)
        if inbound is None or inbound.root is not None:
            return self._delegate.extract(carrier, context=context, getter=getter)
        # Propagators start from an empty context where none is given; the request must stay in it.
        base = identity_context.with_inbound(inbound, Context() if context is None else context)
        extracted = self._delegate.extract(carrier, context=base, getter=getter)
        if context is None and extracted is base:  # nothing in the headers
            return extracted
        return _judged(extracted, inbound) or extracted

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """As the configured propagator does."""
        self._delegate.inject(carrier, context=context, setter=setter)

    @property
    def fields(self) -> set[str]:
        """As the configured propagator says."""
        return self._delegate.fields


def edge_of(propagator: TextMapPropagator) -> EdgePropagator:
    """A propagator that judges callers; one that does already is taken as it is."""
    return propagator if isinstance(propagator, EdgePropagator) else EdgePropagator(propagator)


def install() -> Callable[[], None]:
    """Judge callers, whatever propagator the application sets later; gives what undoes it.

    Without, an application that sets its own would let anybody in, and its requests would have no id.
    """
    given, before = propagate.set_global_textmap, propagate.get_global_textmap()
    given(edge_of(before))
    if not hasattr(given, _KEEPS):
        propagate.set_global_textmap = _keeping(given)

    def undo() -> None:
        propagate.set_global_textmap = given
        given(before)

    return undo


def _keeping(given: Callable[[TextMapPropagator], None]) -> Any:
    @functools.wraps(given)
    def set_global_textmap(http_text_format: TextMapPropagator) -> None:
        given(edge_of(http_text_format))

    setattr(set_global_textmap, _KEEPS, True)
    return set_global_textmap


def _headers_of(delegate: TextMapPropagator) -> frozenset[bytes] | None:
    """The headers that a propagator reads; None where that is not known, as some read more than they say."""
    parts = _sdk_compat.propagators(delegate)
    if not all(type(part) in _WELL_KNOWN for part in parts):
        return None
    return frozenset(field.encode("ascii") for part in parts for field in part.fields)


@guarded(default=None)
def _judged(extracted: Context, inbound: identity_context.Inbound) -> Context:
    remote = trace.get_current_span(extracted).get_span_context()
    if not (remote.is_valid and remote.is_remote):
        return extracted
    if not inbound.trust.trace:
        inbound.link = trace.Link(remote)
        return trace.set_span_in_context(trace.INVALID_SPAN, extracted)
    inbound.edge = not inbound.trust.identity
    return extracted
