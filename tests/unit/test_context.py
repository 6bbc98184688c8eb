"""otel_shim.context: identity is held by the local root span, and by nothing that outlives it."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import context, counters
from otel_shim.model import NOBODY, Identity
from otel_shim.peers import Trust
from tests.unit import scenarios
from tests.unit.telemetry import Telemetry, record_with

# --- one root, fifty tenants ---------------------------------------------------------------------------


class Shim:
    """Identity as the shim holds it."""

    def identity(self, org_id: str) -> Any:
        return otel_shim.identity(org_id=org_id)

    def bind(self, org_id: str) -> None:
        otel_shim.bind(org_id=org_id)


class NaiveProcessor(SpanProcessor):
    """What the shim must not be: the holder of a local root is a plain ContextVar, set in ``on_start``."""

    def __init__(self) -> None:
        self.holder: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("holder")

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.parent is None or span.parent.is_remote:
            self.holder.set({"root": span})
        if "org" in (held := self.holder.get({})):
            span.set_attribute("saas.org.id", held["org"])

    def identity(self, org_id: str) -> Any:
        return self._block(org_id)

    @contextmanager
    def _block(self, org_id: str) -> Iterator[None]:
        held = self.holder.get({})
        before = held.get("org")
        held["org"] = org_id
        yield
        held["org"] = before
        if before is None:
            del held["org"]

    def bind(self, org_id: str) -> None:
        held = self.holder.get({})
        held["org"] = org_id
        held["root"].set_attribute("saas.org.id", org_id)


class NaiveLogs(SpanProcessor):
    """Log records stamped from the same ContextVar."""

    def __init__(self, naive: NaiveProcessor) -> None:
        self._naive = naive

    def on_emit(self, log_record: Any) -> None:
        if "org" in (held := self._naive.holder.get({})):
            record = log_record.log_record
            record.attributes = {**record.attributes, "saas.org.id": held["org"]}


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda s: s.__name__)
def test_no_identity_on_another_tenants_work(
    scenario: Callable[[scenarios.Work], None], telemetry: Telemetry
) -> None:
    """Every span and log of fifty tenants under way at once carries its own tenant, or nobody."""
    work = scenarios.Work(telemetry, Shim())
    scenario(work)
    assert work.leaks() == []
    assert all(work.count(tenant) >= 3 for tenant in scenarios.TENANTS)
    assert counters.snapshot().get("internal_errors", 0) == 0


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda s: s.__name__)
def test_a_plain_context_variable_would_leak(
    scenario: Callable[[scenarios.Work], None],
) -> None:
    """The same scenarios catch a holder that is a plain ContextVar: they can fail."""
    naive = NaiveProcessor()
    recording = record_with(naive, NaiveLogs(naive))  # type: ignore[arg-type]
    work = scenarios.Work(recording, naive)
    contextvars.copy_context().run(scenario, work)
    assert work.leaks()


# --- where identity holds --------------------------------------------------------------------------------


def test_no_span_no_identity(telemetry: Telemetry) -> None:
    """Outside of any span nothing governs and nothing is known."""
    assert context.governing() is None
    assert context.current_root() is None
    assert context.correlation() == {}
    assert otel_shim.current_identity() == NOBODY


def test_ended_root_has_no_identity(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A context that outlived its job brings nobody's identity along."""
    with tracer.start_as_current_span("job"):
        otel_shim.bind(org_id="acme")
        left_over = contextvars.copy_context()
        assert left_over.run(otel_shim.current_identity).org_id == "acme"
    assert left_over.run(otel_shim.current_identity) == NOBODY
    assert left_over.run(context.correlation) == {}

    def later() -> None:
        with tracer.start_as_current_span("later"):
            pass

    left_over.run(later)
    assert telemetry.span("job")["saas.org.id"] == "acme"
    assert "saas.org.id" not in telemetry.span("later")


def test_work_started_after_the_end_is_its_own(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A task that outlives its job and binds somebody does so for itself only."""
    with tracer.start_as_current_span("job"):
        otel_shim.bind(org_id="acme")
        left_over = contextvars.copy_context()

    def later() -> None:
        with tracer.start_as_current_span("later"):
            otel_shim.bind(org_id="globex")
            with tracer.start_as_current_span("below"):
                pass

    left_over.run(later)
    assert telemetry.span("later")["saas.org.id"] == "globex"
    assert telemetry.span("below")["saas.org.id"] == "globex"
    assert "saas.identity.scope" not in telemetry.span("later")


def _request(tracer: trace.Tracer) -> tuple[context.Inbound, Any]:
    inbound = context.Inbound("r-1", Trust(identity=False, trace=True))
    token = attach(context.with_inbound(inbound))
    return inbound, token


def test_open_request_counts_as_live(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Background tasks run after the server span ended, and before the request is over."""
    inbound, token = _request(tracer)
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as server:
        otel_shim.bind(org_id="acme")
        server.end()
        with tracer.start_as_current_span("background"):
            assert otel_shim.current_identity().org_id == "acme"
        inbound.open = False
        assert otel_shim.current_identity() == NOBODY
        with tracer.start_as_current_span("too late"):
            pass
    detach(token)
    assert telemetry.span("background")["saas.org.id"] == "acme"
    assert telemetry.span("background")["saas.request.id"] == "r-1"
    assert "saas.org.id" not in telemetry.span("too late")


def test_two_jobs_at_once_are_two_roots(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A root started inside another's context, as a trace of its own, shares nothing with it."""
    with tracer.start_as_current_span("one"):
        otel_shim.bind(org_id="acme")
        with tracer.start_as_current_span("two", context=Context()):
            assert otel_shim.current_identity() == NOBODY
            otel_shim.bind(org_id="globex")
        assert otel_shim.current_identity().org_id == "acme"
    assert telemetry.span("one")["saas.org.id"] == "acme"
    assert telemetry.span("two")["saas.org.id"] == "globex"


def test_remote_parent_starts_a_local_root(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """The span of another process is no root here: its identity is not ours to share."""
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    with tracer.start_as_current_span("here", context=parent) as span:
        root = context.current_root()
        assert root is not None and root.span() is span
        otel_shim.bind(org_id="acme")
    assert telemetry.span("here")["saas.org.id"] == "acme"


def test_block_outside_of_any_span_names_the_roots_in_it(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """A worker may open the block first and start its span inside."""
    with otel_shim.identity(org_id="acme"):
        assert otel_shim.current_identity().org_id == "acme"
        with tracer.start_as_current_span("job"), tracer.start_as_current_span("step"):
            assert context.correlation()["saas.org.id"] == "acme"
    with tracer.start_as_current_span("next"):
        pass
    assert telemetry.span("job")["saas.org.id"] == "acme"
    assert telemetry.span("step")["saas.org.id"] == "acme"
    assert "saas.org.id" not in telemetry.span("next")


@pytest.mark.parametrize("kind", [SpanKind.INTERNAL, SpanKind.CONSUMER])
def test_roots_in_one_block_do_not_share_what_each_binds(
    telemetry: Telemetry, tracer: trace.Tracer, kind: SpanKind
) -> None:
    """A consumer opens a block for its organisation; the user of one message is not the next one's."""
    with otel_shim.identity(org_id="acme"):
        with tracer.start_as_current_span("first", kind=kind):
            otel_shim.bind(user_id="ada")
        assert otel_shim.current_identity() == Identity("acme")
        with tracer.start_as_current_span("second", kind=kind):
            assert otel_shim.current_identity() == Identity("acme")
    assert "user.hash" in telemetry.span("first")
    assert telemetry.span("second") == {"saas.org.id": "acme"}


def test_server_started_in_a_block_does_not_hand_it_to_requests(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """A request is not its server's: a block around the server's start names none of its requests."""
    with otel_shim.identity(org_id="acme"):
        _inbound, token = _request(tracer)
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
            assert otel_shim.current_identity() == Identity(request_id="r-1")
            with tracer.start_as_current_span("query"):
                pass
            otel_shim.bind(org_id="globex")
        detach(token)
    assert telemetry.span("GET")["saas.org.id"] == "globex"
    assert telemetry.span("query")["saas.org.id"] == "globex"
    assert counters.snapshot() == {}


def test_unsampled_work_costs_nothing_and_raises_nothing(tracer: trace.Tracer) -> None:
    """Spans that are not recorded have no place; everything is safe under them."""
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    with trace.use_span(unsampled):
        otel_shim.bind(org_id="acme")
        with otel_shim.identity(org_id="acme"):
            assert otel_shim.current_identity().org_id == "acme"
        assert otel_shim.current_identity() == NOBODY


# --- hidden costs ----------------------------------------------------------------------------------------


def test_long_root_stays_bounded(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A root that lives long and has many children remembers the open ones only."""
    with tracer.start_as_current_span("job"):
        root = context.current_root()
        assert root is not None
        longest = 0
        for _ in range(5000):
            with tracer.start_as_current_span("step"):
                longest = max(longest, len(root._open))
        assert longest <= 128
        otel_shim.bind(org_id="acme")
    assert telemetry.span("job")["saas.org.id"] == "acme"


def test_open_children_are_never_forgotten(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """However many children are open, a late binding reaches each."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        spans = [tracer.start_span(f"open-{n}") for n in range(500)]
        for _ in range(500):
            tracer.start_span("short").end()
        otel_shim.bind(org_id="acme")
        for span in spans:
            span.end()
    assert all(telemetry.span(f"open-{n}")["saas.org.id"] == "acme" for n in range(500))


def test_ended_work_is_freed(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A root, its scopes and its spans go when the work ends, without waiting for the collector."""
    freed: list[weakref.ref[Any]] = []
    gc.disable()
    for _ in range(3):
        with tracer.start_as_current_span("job") as span, otel_shim.identity(org_id="acme"):
            freed.append(weakref.ref(span))
            with tracer.start_as_current_span("step") as step:
                freed.append(weakref.ref(step))
                otel_shim.bind(user_id="ada")
    del span, step
    alive = [ref() for ref in freed]
    gc.enable()
    assert alive == [None] * 6


def test_spans_from_many_threads_under_one_root(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Starting spans and binding at the same time loses no span and raises nothing."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        here = contextvars.copy_context()

        def work(copied: contextvars.Context) -> None:
            for _ in range(50):
                copied.run(lambda: tracer.start_span("step").end())

        threads = [
            threading.Thread(target=work, args=(here.run(contextvars.copy_context),))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        otel_shim.bind(org_id="acme", user_id="ada")
        for thread in threads:
            thread.join()
        with tracer.start_as_current_span("last"):
            pass
    assert telemetry.span("last")["saas.org.id"] == "acme"
    assert len(telemetry.spans()) == 8 * 50 + 2
    assert counters.snapshot() == {}


def test_plain_sdk_processor_order_does_not_matter() -> None:
    """A provider without the shim's processor gives spans without a place, and all calls stay safe."""
    tracer = TracerProvider().get_tracer("bare")
    with tracer.start_as_current_span("bare") as span:
        otel_shim.bind(org_id="acme")
        assert context.place_of(span) is None
        assert otel_shim.current_identity() == NOBODY
    assert counters.snapshot() == {"bind_without_root": 1}


# --- spans that ended too early ----------------------------------------------------------------------------


def test_early_span_is_named_while_it_waits_for_its_export(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """A query that ended before authentication carries who it was for, if it is exported after."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        with tracer.start_as_current_span("token"):
            pass
        otel_shim.bind(org_id="acme", user_id="ada")
    assert telemetry.span("token") == telemetry.span("GET")


def test_early_span_of_a_mixed_request_names_nobody(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Where a second organisation appears, what ended before the first belongs to neither."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        with tracer.start_as_current_span("early"):
            pass
        otel_shim.bind(org_id="acme", user_id="ada")
        otel_shim.bind(org_id="globex")
    assert "saas.org.id" not in telemetry.span("early")
    assert "user.hash" not in telemetry.span("early")


def test_early_span_of_a_job_is_left_alone(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A job may walk over organisations: what it did before the first is nobody's."""
    with tracer.start_as_current_span("job"):
        with tracer.start_as_current_span("early"):
            pass
        otel_shim.bind(org_id="acme")
    assert "saas.org.id" not in telemetry.span("early")


def test_early_spans_are_remembered_in_bounds(tracer: trace.Tracer) -> None:
    """A request in which nobody becomes known does not keep all of its spans."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        for _ in range(2_000):
            with tracer.start_as_current_span("query"):
                pass
        root = context.current_root()
        assert root is not None
        assert len(root._early) <= 256
