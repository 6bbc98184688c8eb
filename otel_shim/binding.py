"""Binding identity to the work at hand: late, scoped, and never over somebody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import Token
from dataclasses import replace
from types import TracebackType
from typing import Any

from opentelemetry.context import Context, attach
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import get_current_span

from otel_shim import _sdk_compat, attributes, context, counters, sources
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.model import NOBODY, Identity, Scalar
from otel_shim.values import encodable

_TEXT_FIELDS = ("org_id", "user_id", "actor_type", "actor_role", "plan")
_MAX_EXTRA = 256


def identity_from(values: Mapping[str, Any]) -> Identity:
    """An identity from what the application passed; a value that is no identifier is left out and counted."""
    known = {
        name: _identifier(values[name]) for name in _TEXT_FIELDS if values.get(name) is not None
    }
    return Identity(**known, extra=_extra(values)) if values else NOBODY


def _identifier(value: Any) -> str | None:
    text = sources.canonical(value)
    if text is None:
        counters.add("identity_rejected")
    return text


def _extra(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Keywords of the contract by their attribute, others under ``saas.extra.``."""
    extra: dict[str, Scalar] = {}
    for name, value in values.items():
        if name in _TEXT_FIELDS or value is None:
            continue
        scalar = _exportable(value)
        if scalar is None:
            counters.add("identity_rejected")
            continue
        key = semconv.BINDABLE.get(name, f"{semconv.SAAS_EXTRA}.{encodable(name)}")
        extra[key] = scalar
    return extra


def _exportable(value: Any) -> Scalar | None:
    """A value that OTLP can hold: one that it cannot would be an error in each of its exports."""
    if isinstance(value, str):
        return encodable(value[:_MAX_EXTRA])
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else None
    return value if isinstance(value, float) else None


@guarded(default=None)
def bind(values: Mapping[str, Any]) -> None:
    """Bind what is known now to the open work; see ``otel_shim.bind``."""
    scope = context.governing()
    place = context.place_of(get_current_span())
    if scope is None or place is None:
        counters.add("bind_without_root")
        return
    apply(place.root, scope, identity_from(values))


def apply(root: context.LocalRoot, scope: context.Scope, found: Identity) -> None:
    """Bind an identity under a root, in the scope that holds there. What sources found gives way."""
    with root.binding:
        if root.conflicts(scope.bound(), found):
            _diverge(root, scope, found)
        elif scope.mixed or (scope is root.scope and not root.wide):
            _open_branch(root, root.less_job(scope.identity, found).updated(found))
        else:
            scope.sourced -= found.known_fields()
            root.put(scope, root.less_job(scope.identity, found).updated(found))


def apply_sourced(root: context.LocalRoot, values: Mapping[str, str]) -> None:
    """Take what sources found for a request; what was bound stays."""
    with root.binding:
        scope = root.scope
        taken = values.keys() - scope.bound().known_fields()
        if "user_id" not in taken:  # it says what the actor is that was not taken
            taken -= {"actor_type"}
        if taken and not scope.mixed:
            known: dict[str, Any] = {name: values[name] for name in taken}
            found = Identity(**known)  # sources give canonical text
            scope.sourced |= taken
            root.put(scope, scope.identity.updated(found))


def _diverge(root: context.LocalRoot, scope: context.Scope, found: Identity) -> None:
    """Somebody else is bound here already: what is open belongs to both, what comes is the new one's."""
    counters.add("identity_conflicts")
    if scope is root.scope and root.wide:
        root.mix_all()
    for span, place in _upwards():
        if place.carries is scope:
            root.mix(span, place)
    _open_from_here(root, root.afresh(found).updated(found))


def _open_branch(root: context.LocalRoot, identity: Identity) -> None:
    """Bind the first identity of this branch of a job.

    It holds from here on, and for the spans above as far as no other branch has claimed them.
    """
    branch = _open_from_here(root, identity)
    for span, place in _upwards():
        if place.carries.mixed:
            continue
        if root.conflicts(place.carries.identity, identity):
            counters.add("identity_conflicts")
            root.mix(span, place)
        else:
            context.settle(span, context.Place(place.root, place.scope, branch, place.parent))
            _sdk_compat.stamp(span, branch.attributes)


def _open_from_here(root: context.LocalRoot, identity: Identity) -> context.Scope:
    """Open a scope for this task or thread from here on.

    It is never detached: it ends with the task, or with the block around it, and under another root
    it does not count.
    """
    scope = context.Scope(root, identity.updated(root.lasting()))
    attach(context.with_scope(scope))
    return scope


def _upwards() -> Iterator[tuple[Span, context.Place]]:
    """The open spans from the current one up to its local root, and where they stand."""
    span: Any = get_current_span()
    while (place := context.place_of(span)) is not None:
        if span.is_recording():
            yield span, place
        span = place.parent


class ScopedIdentity:
    """The block of ``otel_shim.identity``; usable once, in sync and async code."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._token = _enter(self._values)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            context.leave(self._token)
            self._token = None


@guarded(default=None)
def _enter(values: Mapping[str, Any]) -> Token[Context]:
    found = identity_from(values)
    outer = context.governing() or context.opened_outside(None)
    root = context.current_root()
    around = outer.identity if outer is not None else NOBODY
    around = root.less_job(around, found) if root is not None else around
    if around.conflicts(found):
        around = root.afresh(found) if root is not None else NOBODY
    scope = context.Scope(root, around.updated(found))
    if root is not None and scope.identity.org_id is not None:
        root.works_for(scope.identity.org_id)
    return attach(context.with_scope(scope))


@guarded(default=NOBODY)
def current() -> Identity:
    """See ``otel_shim.current_identity``."""
    scope = context.governing() or context.opened_outside(None)
    if scope is None:
        return NOBODY
    return replace(scope.identity, actor_type=attributes.actor_type(scope.identity))
