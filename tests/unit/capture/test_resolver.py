"""otel_shim.capture.resolver: the first source of a list that has a value, whenever it is found."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import context, counters
from otel_shim.capture.resolver import Resolution, Resolver
from otel_shim.config import from_environ
from otel_shim.peers import Trust
from tests.unit.telemetry import Telemetry


def _resolution(scope: dict[str, Any], **environ: str) -> tuple[Resolution, context.Inbound]:
    inbound = context.Inbound("r-1", Trust(identity=False, trace=True))
    return Resolution(Resolver(from_environ(environ).sources), inbound, scope), inbound


def _serving(tracer: trace.Tracer, inbound: context.Inbound) -> Any:
    at = context.with_inbound(inbound, Context())
    return tracer.start_as_current_span("GET", kind=SpanKind.SERVER, context=at)


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["first", "state", "user"])), ids="-".join
)
def test_best_source_wins_in_any_order(
    order: tuple[str, ...], telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """The rank decides, not who comes first."""
    scope: dict[str, Any] = {}
    resolution, inbound = _resolution(
        scope, OTEL_SHIM_ORG_ID="dependency:first.org,state:org,user:org"
    )
    with _serving(tracer, inbound):
        for kind in order:
            if kind == "first":
                resolution.solved(frozenset({"first"}), {"org": "first"})
            else:
                scope[kind] = {"org": kind}
                resolution.from_scope()
    assert telemetry.span("GET")["saas.org.id"] == "first"
    assert counters.snapshot() == {}


def test_absent_and_unusable_values_are_skipped(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A source that has nothing, or no identifier, gives way to the next."""
    scope = {
        "state": {"a": None, "b": object(), "c": "", "d": "x" * 300, "e": SimpleNamespace(id=7)}
    }
    resolution, inbound = _resolution(
        scope,
        OTEL_SHIM_ORG_ID="state:missing,state:a,state:b,state:c,state:d,state:e.missing,state:e.id",
    )
    with _serving(tracer, inbound):
        resolution.from_scope()
    assert telemetry.span("GET")["saas.org.id"] == "7"


def test_fields_are_found_apart(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Organisation and user may come from different places, at different times."""
    scope: dict[str, Any] = {"state": {"org_id": "acme"}}
    resolution, inbound = _resolution(scope)
    with _serving(tracer, inbound):
        resolution.from_scope()
        resolution.solved(
            frozenset({"current_user"}), SimpleNamespace(id=1, role="admin", plan="pro")
        )
        found = otel_shim.current_identity()
    assert (found.org_id, found.user_id, found.actor_role, found.plan) == (
        "acme",
        "1",
        "admin",
        "pro",
    )


def test_without_a_server_span_nothing_is_claimed(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Where the request is not traced there is nobody to give identity to; and it may be traced later."""
    resolution, inbound = _resolution({"state": {"org_id": "acme"}})
    resolution.from_scope()
    with _serving(tracer, inbound):
        resolution.from_scope()
    assert telemetry.span("GET")["saas.org.id"] == "acme"


def test_path_only_when_asked(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """What the path says counts once authentication let the request through."""
    resolution, inbound = _resolution({"path_params": {"org": "acme"}}, OTEL_SHIM_ORG_ID="path:org")
    with _serving(tracer, inbound):
        resolution.from_scope()
        assert otel_shim.current_identity().org_id is None
        resolution.from_scope(path=True)
        assert otel_shim.current_identity().org_id == "acme"
