"""Identity in the process: held by the local root span, found from the current span.

    start of a local root ─▶ LocalRoot ─▶ its Scope ◀─ bind(), sources
    start of a child      ─▶ the governing Scope stamps it
    with identity(...)    ─▶ a Scope of its own, in the OpenTelemetry Context

No current recording root, no identity: a context that outlived its request or job has none.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from contextvars import Token
from dataclasses import replace
from typing import NamedTuple, cast

from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.sdk.trace import Span
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_ROUTE
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    SpanKind,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as ApiSpan

from otel_shim import _sdk_compat, attributes, locks
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.model import NOBODY, Identity, Scalar, differ
from otel_shim.peers import Trust

_SCOPE = create_key("otel-shim-scope")
_INBOUND = create_key("otel-shim-inbound")
_OPERATION = create_key("otel-shim-operation")
_REMEMBERED = create_key("otel-shim-remembered")
_NOBODYS = create_key("otel-shim-nobodys")
_ENDPOINT = (HTTP_REQUEST_METHOD, HTTP_ROUTE)
_PLACE = "_otel_shim_place"
_ORIGIN = "_otel_shim_origin"
_ONE_CALLER = (SpanKind.SERVER, SpanKind.CONSUMER)
_PRUNE_AT = 64
_MOST_EARLY = 256
"""Spans of a request that are remembered to be named after their end; those beyond are the Collector's."""

Stamp = Callable[[Identity], dict[str, Scalar]]


def _unkeyed(identity: Identity) -> dict[str, Scalar]:
    return attributes.of(identity, None)


_stamp: Stamp = _unkeyed


def use_stamp(stamp: Stamp) -> Stamp:
    """Set how identities become attributes, and return how they did; called once, when the distro is wired."""
    global _stamp
    before, _stamp = _stamp, stamp
    return before


class Inbound:
    """One inbound request while it is handled.

    Made before its server span starts; open until its background tasks have ended.
    """

    __slots__ = ("edge", "headers", "link", "open", "request_id", "root", "trust")

    def __init__(self, request_id: str, trust: Trust) -> None:
        self.request_id = request_id
        self.trust = trust
        self.headers: Mapping[bytes, bytes] = {}
        """The request's headers that are looked at, by their names in lower case."""
        self.edge = False
        self.link: Link | None = None
        self.root: LocalRoot | None = None
        self.open = True

    def close(self) -> None:
        """The request is over, its background tasks included.

        What refers to each other is taken apart, so that a request is freed when it ends, not when
        the garbage collector next looks: its state may hold a database session. Contexts live on, in timers
        of the server for one, and their span with them: all that they still say is that the work is over.
        """
        self.open = False
        root = self.root
        if root is None:
            return
        root.inbound = None
        span = root.span()
        if span is not None and not span.is_recording():
            settle(span, _OVER)
            self.root = _OVER.root


class Scope:
    """One identity and the attributes it gives; governs the spans started under it.

    It belongs to a local root, or to none where it was opened outside of any span.
    """

    __slots__ = ("_root", "attributes", "identity", "mixed", "sourced")

    def __init__(self, root: LocalRoot | None, identity: Identity, mixed: bool = False) -> None:
        self._root = (
            weakref.ref(root) if root is not None else None
        )  # weak: the root holds its scope
        self.mixed = mixed
        """Whether what it governs belongs to several, so that nobody's identity may be put on it."""
        self.sourced: frozenset[str] = frozenset()
        """The fields that sources found; what the application binds itself goes over them."""
        self.become(identity)

    def of(self, root: LocalRoot) -> bool:
        """Whether it belongs to this root."""
        return self._root is not None and self._root() is root

    def outside(self) -> bool:
        """Whether it was opened outside of any span."""
        return self._root is None

    def bound(self) -> Identity:
        """The identity without what sources found."""
        return self.identity.without(self.sourced)

    def become(self, identity: Identity) -> None:
        """Take an identity; before its spans are stamped, so that one started meanwhile has it too."""
        self.attributes = _stamp(identity) if identity is not NOBODY else {}
        self.identity = identity


class Place(NamedTuple):
    """Where a span stands.

    Its local root, the scope that holds under it, the scope whose identity it carries itself, and its
    parent in this process.
    """

    root: LocalRoot
    scope: Scope
    carries: Scope
    parent: Span | None


class LocalRoot:
    """What is known about one local root span, shared by all spans under it in this process."""

    __slots__ = (
        "__weakref__",
        "_actor",
        "_early",
        "_lock",
        "_open",
        "_prune_at",
        "_references",
        "_walked",
        "binding",
        "endpoint",
        "inbound",
        "operation",
        "scope",
        "serves",
        "span",
        "span_context",
        "wide",
    )

    def __init__(self, span: Span, scope: Scope | None, inbound: Inbound | None) -> None:
        self.span = weakref.ref(span)  # weak: the span refers to its root
        self.span_context = span.get_span_context()
        self.endpoint: dict[str, Scalar] = {}
        self.inbound = inbound
        self.operation: str | None = None
        # A request or message has one caller, so what is bound anywhere under it holds for all of
        # it. A job may walk over organisations: what is bound there holds from there on only.
        self.wide = span.kind in _ONE_CALLER
        self.serves = span.kind is SpanKind.SERVER
        request_id = inbound.request_id if inbound is not None else None
        # A scope of its own, also in a block outside: what is bound here is not the next root's.
        unbound = Identity(request_id=request_id) if request_id is not None else NOBODY
        self.scope = Scope(self, scope.identity if scope else unbound)
        self._references: Mapping[str, Scalar] = {}
        self._walked: str | None = None
        self._actor: str | None = None
        self._open: list[weakref.ref[Span]] = []
        self._prune_at = _PRUNE_AT
        self._early: list[tuple[weakref.ref[Span], object]] = []
        """Spans that started before anybody was known; they may end before that, and wait for export."""
        self._lock = threading.Lock()
        self.binding = threading.RLock()
        """Held from the look at what is bound to the change of it; spans start without it."""

    def renew_locks(self) -> None:
        """Take locks that nobody holds, and give such to the open spans."""
        self._lock = threading.Lock()
        self.binding = threading.RLock()
        for ref in self._open:
            if (span := ref()) is not None:
                _sdk_compat.renew_locks(span)

    def is_job(self, span: Span, actor: Identity) -> None:
        """Turn out to be a run of a job, as its span starts: that is the actor unless another is named."""
        with self.binding:
            self._actor = actor.user_id
            self._references = actor.extra
            outer = self.scope.identity
            if outer is not NOBODY:
                actor = self.less_job(actor, outer).updated(outer)
            self.scope.become(actor)
            _sdk_compat.stamp(span, self.scope.attributes)

    def less_job(self, identity: Identity, found: Identity) -> Identity:
        """An identity that another is put over: without the job as the actor, where one is named."""
        if found.user_id is None or self._actor is None or identity.user_id != self._actor:
            return identity
        return identity.without(("user_id", "actor_type"))

    def conflicts(self, identity: Identity, found: Identity) -> bool:
        """Whether another identity than the one found is there already; a job gives way to an actor."""
        given = identity.user_id if identity.user_id != self._actor else None
        return differ(identity.org_id, found.org_id) or differ(given, found.user_id)

    def lasting(self) -> Identity:
        """What holds under this root whoever the work is for: its request, a job's GDPR references."""
        return Identity(request_id=self.scope.identity.request_id, extra=self._references)

    def afresh(self, found: Identity) -> Identity:
        """What another's identity is put over, of which nothing may stay: the job as its actor, if it is one."""
        fresh = self.lasting()
        if self._actor is None or found.user_id is not None or found.actor_type is not None:
            return fresh
        return replace(fresh, user_id=self._actor, actor_type=semconv.SAAS_ACTOR_TYPE_JOB)

    def works_for(self, org_id: str) -> None:
        """Note an organisation that a block under this root is for: with a second one it is nobody's.

        A request or message has one caller; where its work is done for others, that is its own affair.
        """
        if self.serves or self.scope.identity.org_id is not None:
            return
        with self._lock:
            first = self._walked
            self._walked = first or org_id
        if first not in (None, org_id) and (span := self.span()) is not None:
            span.set_attribute(semconv.SAAS_IDENTITY_SCOPE, semconv.SAAS_IDENTITY_SCOPE_MULTI)

    def live(self) -> bool:
        """Whether the work goes on: the span is open, or the request still runs background tasks."""
        inbound = self.inbound
        if inbound is not None and inbound.open:
            return True
        span = self.span()
        return span is not None and span.is_recording()

    def current_endpoint(self) -> dict[str, Scalar]:
        """Method and route of the request, as far as they are known; they outlive the span."""
        span = self.span()
        if span is not None and len(self.endpoint) < len(_ENDPOINT):
            found = {key: _sdk_compat.attribute(span, key) for key in _ENDPOINT}
            self.endpoint = {key: value for key, value in found.items() if value is not None}
        return self.endpoint

    def reached(self, span: Span, name: str, route: str) -> None:
        """Name the span of a request by the route that it reached; an earlier one was that of a mount."""
        span.set_attribute(HTTP_ROUTE, route)
        span.update_name(name)
        self.endpoint = {}

    def enter(self, span: Span, scope: Scope, parent: Span | None) -> None:
        """Take in a span that starts; the list of open ones is pruned as it grows."""
        settle(span, Place(self, scope, scope, parent))
        with self._lock:
            self._open.append(weakref.ref(span))
            if scope is self.scope and self.wide and not scope.identity.known():
                self._remember_early(span)
            if len(self._open) >= self._prune_at:
                self._open = [ref for ref in self._open if _recording(ref())]
                self._prune_at = max(_PRUNE_AT, 2 * len(self._open))

    def _remember_early(self, span: Span) -> None:
        if len(self._early) < _MOST_EARLY:
            self._early.append((self._open[-1], _sdk_compat.held_attributes(span)))

    def _amend_early(self, add: Mapping[str, Scalar], remove: Collection[str]) -> None:
        """Bring spans that ended too early to what is known now, as far as they wait for their export."""
        with self._lock:
            early = list(self._early)
        for ref, held in early:
            if not _recording(ref()):
                _sdk_compat.amend(held, add, remove)

    def carriers(self, scope: Scope) -> list[Span]:
        """The open spans that carry a scope's identity."""
        with self._lock:
            spans = [ref() for ref in self._open]
        return [span for span in spans if span is not None and _carries(span, scope)]

    def put(self, scope: Scope, identity: Identity) -> None:
        """Give a scope an identity and stamp the open spans that carry it."""
        before = scope.attributes
        scope.become(identity)
        now = scope.attributes
        gone = before.keys() - now.keys()
        changed = {key: value for key, value in now.items() if before.get(key) != value}
        for span in self.carriers(scope) if gone or changed else ():
            if gone:
                _sdk_compat.remove_attributes(span, gone)
            _sdk_compat.stamp(span, changed)
        if scope is self.scope and (gone or changed):
            self._amend_early(changed, gone)

    def mix(self, span: Span, place: Place) -> None:
        """Take the identity off a span that turned out to belong to several; a root becomes a barrier."""
        nobody = Scope(self, self.lasting(), mixed=True)
        settle(span, place._replace(carries=nobody))
        _sdk_compat.remove_attributes(span, attributes.IDENTITY_KEYS)
        if span is self.span():
            span.set_attribute(semconv.SAAS_IDENTITY_SCOPE, semconv.SAAS_IDENTITY_SCOPE_MULTI)

    def mix_all(self) -> None:
        """Turn out to belong to several as a whole: what no scope of its own names stays unnamed."""
        spans = self.carriers(self.scope)
        self.scope.mixed = True
        self.scope.become(self.lasting())
        for span in spans:
            if (place := place_of(span)) is not None:
                self.mix(span, place)
        self._amend_early({}, attributes.IDENTITY_KEYS)


class _Ended(NonRecordingSpan):
    kind = SpanKind.SERVER


def _over() -> Place:
    """The place of a span whose work is over, whoever it was for."""
    root = LocalRoot(cast(Span, _Ended(INVALID_SPAN_CONTEXT)), None, None)
    return Place(root, root.scope, root.scope, None)


_OVER = _over()


def _carries(span: Span, scope: Scope) -> bool:
    place = place_of(span)
    return place is not None and place.carries is scope and span.is_recording()


def settle(span: Span, place: Place) -> None:
    """Note on a span where it stands."""
    setattr(span, _PLACE, place)


def place_of(span: ApiSpan | None) -> Place | None:
    """Where a span stands; None for one that is not recorded here."""
    return cast("Place | None", getattr(span, _PLACE, None))


@guarded(default=None)
def _renew_locks() -> None:
    """In a forked process, of the work that it was forked in: all other work is its parent's."""
    place = place_of(get_current_span())
    if place is not None:
        place.root.renew_locks()


locks.in_children(_renew_locks)


def governing(context: Context | None = None) -> Scope | None:
    """The scope that holds at a point of the program; None outside of live work.

    A scope in the context counts only under the root it was opened for: a context that leaked to
    other work brings nobody's identity along.
    """
    place = place_of(get_current_span(context))
    return governing_under(place, context) if place is not None else None


def governing_under(place: Place, context: Context | None) -> Scope | None:
    """The scope that holds under a span of this context."""
    if not place.root.live():
        return None
    scope = cast("Scope | None", get_value(_SCOPE, context))
    return scope if scope is not None and scope.of(place.root) else place.scope


def opened_outside(context: Context | None) -> Scope | None:
    """The scope of an ``identity()`` block that was opened outside of any span."""
    scope = cast("Scope | None", get_value(_SCOPE, context))
    return scope if scope is not None and scope.outside() else None


def current_root() -> LocalRoot | None:
    """The local root of the current span, while its work goes on."""
    place = place_of(get_current_span())
    return place.root if place is not None and place.root.live() else None


def with_scope(scope: Scope, base: Context | None = None) -> Context:
    """A context, by default the current one, with a scope in it."""
    return set_value(_SCOPE, scope, base)


def leave(token: Token[Context]) -> None:
    """Go back to the context before a block.

    Where the block ends in another task (a stream that somebody else closes), there is nothing to go
    back to; OpenTelemetry's ``detach`` would log an error each time.
    """
    try:
        token.var.reset(token)
    except (
        ValueError
    ):  # no ``suppress`` here: it takes as long as the rest, and every block ends here
        return


def for_nobody(base: Context) -> Context:
    """A context for a root span that is over when it is made: it is nobody's, and nothing will stand under it."""
    return set_value(_NOBODYS, True, base)


def is_for_nobody(context: Context | None) -> bool:
    """Whether a context was made by ``for_nobody``."""
    return context is not None and get_value(_NOBODYS, context) is True


def with_inbound(inbound: Inbound, base: Context | None = None) -> Context:
    """A context, by default the current one, with the inbound request in it."""
    return set_value(_INBOUND, inbound, base)


def inbound_of(context: Context | None) -> Inbound | None:
    """The inbound request that a context belongs to."""
    return cast("Inbound | None", get_value(_INBOUND, context))


def correlation(at: Context | None = None) -> Mapping[str, Scalar]:
    """Identity, operation and endpoint that hold at a point of the program; empty outside of live work."""
    remembered = cast("Mapping[str, Scalar] | None", get_value(_REMEMBERED, at))
    if remembered is not None:
        return remembered
    scope = governing(at)
    place = place_of(get_current_span(at))
    if scope is None or place is None:
        return {}
    return _described(place.root, scope, cast("str | None", get_value(_OPERATION, at)))


def remember(error: BaseException, root: LocalRoot) -> None:
    """Keep on an error what held where it left the request, for whoever logs it afterwards."""
    at = set_span_in_context(NonRecordingSpan(root.span_context), Context())
    found = _described(root, root.scope, root.operation)
    setattr(error, _ORIGIN, set_value(_REMEMBERED, found, at))


def remembered(error: BaseException | None) -> Context | None:
    """The context kept on an error; once, for the same object may be raised again by other work."""
    return cast("Context | None", vars(error).pop(_ORIGIN, None)) if error is not None else None


def _described(root: LocalRoot, scope: Scope, operation: str | None) -> dict[str, Scalar]:
    found = {**scope.attributes, **root.current_endpoint()}
    operation = operation or root.operation
    if operation is not None:
        found[semconv.SAAS_OPERATION] = operation
    return found


def with_operation(name: str, context: Context | None = None) -> Context:
    """A context in which an operation is the current one."""
    return set_value(_OPERATION, name, context)


def _recording(span: Span | None) -> bool:
    return span is not None and span.is_recording()
