"""Identity on spans: each is stamped when it starts, open ones again when more becomes known."""

from __future__ import annotations

from typing import cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind, get_current_span

from otel_shim import _sdk_compat, context
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.model import Scalar


class IdentitySpanProcessor(SpanProcessor):
    """Stamps spans with the identity that holds where they start."""

    @guarded(default=None)
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Find the local root of a span, or make it one, and stamp it."""
        parent = get_current_span(parent_context)
        place = context.place_of(parent)
        if place is None and context.is_for_nobody(parent_context):
            return
        if place is None or span.parent is None:
            _start_root(span, parent_context)
        else:
            _start_child(span, cast(Span, parent), place, parent_context)


def _start_child(
    span: Span, parent: Span, place: context.Place, parent_context: Context | None
) -> None:
    scope = context.governing_under(place, parent_context)
    if scope is None:  # the work above has ended: nobody's identity is inherited from it
        return _start_root(span, None)
    place.root.enter(span, scope, parent)
    if scope.attributes:
        _sdk_compat.stamp(span, scope.attributes)
    return None


def _start_root(span: Span, parent_context: Context | None) -> None:
    inbound = _take_inbound(span, parent_context)
    outside = context.opened_outside(parent_context) if inbound is None else None
    root = context.LocalRoot(span, outside, inbound)
    root.enter(span, root.scope, None)
    stamps: dict[str, Scalar] = dict(root.scope.attributes)
    if inbound is not None:
        inbound.root = root
        root.operation = stamps[semconv.SAAS_OPERATION] = semconv.OPERATION_HTTP_REQUEST
        stamps.update(_edge(span, inbound))
    if stamps:
        _sdk_compat.stamp(span, stamps)


def _take_inbound(span: Span, parent_context: Context | None) -> context.Inbound | None:
    """The request whose server span this is; the first local root under it, while it lasts, is the one."""
    if span.kind is not SpanKind.SERVER:
        return None
    inbound = context.inbound_of(parent_context)
    return inbound if inbound is not None and inbound.open and inbound.root is None else None


def _edge(span: Span, inbound: context.Inbound) -> dict[str, Scalar]:
    if inbound.link is not None:
        span.add_link(inbound.link.context, inbound.link.attributes)
    return {semconv.SAAS_IDENTITY_EDGE: True} if inbound.edge else {}
