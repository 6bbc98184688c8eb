"""otel_shim.binding: late, scoped, and never over somebody else's."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import binding, context, counters
from otel_shim.model import NOBODY, Identity
from tests.unit.telemetry import Telemetry

SCOPE = "saas.identity.scope"
ORG = "saas.org.id"


@pytest.fixture
def threads_instrumented() -> Iterator[None]:
    """OpenTelemetry's own instrumentation of threads, which carries contexts into them."""
    instrumentor = ThreadingInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


def _server(tracer: trace.Tracer) -> Any:
    return tracer.start_as_current_span("GET", kind=SpanKind.SERVER)


# --- what is accepted --------------------------------------------------------------------------------


def test_identity_from_values() -> None:
    """Ids of any accepted type become text; keywords of the contract stand under their attribute."""
    found = binding.identity_from(
        {
            "org_id": 42,
            "user_id": "ada",
            "plan": None,
            "audit_record_id": "a-1",
            "campaign": 3,
            "none": None,
        }
    )
    assert found == Identity(
        "42", "ada", extra={"audit.record.id": "a-1", "saas.extra.campaign": 3}
    )


@pytest.mark.parametrize(
    "value",
    [object(), [], {}, b"x", 1.5, True, "", "x" * 257, "a\nb", pytest.param(10**5000, id="huge")],
)
def test_what_is_no_identifier_is_left_out_and_counted(value: Any) -> None:
    """A bad value costs only itself."""
    assert binding.identity_from({"org_id": value, "user_id": "ada"}) == Identity(user_id="ada")
    assert counters.snapshot() == {"identity_rejected": 1}


@pytest.mark.parametrize("value", [object(), [], {}, b"x", 2**63, -(2**63) - 1])
def test_extras_that_cannot_be_exported_are_refused(value: Any) -> None:
    """One value that OTLP cannot hold would lose the whole batch it is exported in."""
    assert binding.identity_from({"campaign": value}) == NOBODY
    assert counters.snapshot() == {"identity_rejected": 1}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("x" * 1000, "x" * 256),
        ("a\ud800b", "a?b"),
        (2**63 - 1, 2**63 - 1),
        (1.5, 1.5),
        (True, True),
    ],
)
def test_extras_are_made_fit_for_export(value: Any, kept: Any) -> None:
    """Text is cut to 256 characters and has no lone surrogates; numbers stay."""
    assert binding.identity_from({"campaign": value}).extra == {"saas.extra.campaign": kept}


# --- binding late ------------------------------------------------------------------------------------


def test_bind_reaches_the_root_open_children_and_later_ones(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Only spans that ended before are without it."""
    with _server(tracer):
        with tracer.start_as_current_span("ended"):
            pass
        sibling = tracer.start_span("sibling")
        with tracer.start_as_current_span("open"), tracer.start_as_current_span("endpoint"):
            otel_shim.bind(org_id="acme", user_id="ada", actor_role="admin", plan="pro")
        with tracer.start_as_current_span("later"):
            pass
        sibling.end()
    expected = telemetry.span("GET")
    assert expected[ORG] == "acme" and expected["saas.actor.role"] == "admin"
    assert expected["saas.plan"] == "pro" and expected["saas.actor.type"] == "user"
    assert expected["user.hash"].count(".") == 1
    for name in ("sibling", "open", "endpoint", "later"):
        assert telemetry.span(name) == expected
    assert telemetry.span("ended") == expected  # it waits for its export


def test_bind_adds_up(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Several calls that agree complete each other."""
    with _server(tracer):
        otel_shim.bind(org_id="acme")
        otel_shim.bind(user_id="ada", audit_record_id="a-1")
        otel_shim.bind(org_id="acme", plan="pro")
        assert otel_shim.current_identity() == Identity(
            "acme", "ada", "user", plan="pro", extra={"audit.record.id": "a-1"}
        )
    assert telemetry.span("GET")["audit.record.id"] == "a-1"
    assert counters.snapshot() == {}


def test_roles_may_change(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Role and plan are no identity: the last word counts, without a conflict."""
    with _server(tracer):
        otel_shim.bind(org_id="acme", actor_role="user")
        otel_shim.bind(actor_role="admin")
    assert telemetry.span("GET")["saas.actor.role"] == "admin"
    assert counters.snapshot() == {}


def test_actor_type_decides_the_hash(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A key bound after its id takes the ``user.hash`` off again."""
    with _server(tracer):
        otel_shim.bind(org_id="acme", user_id="k1")
        otel_shim.bind(actor_type="api_key")
    found = telemetry.span("GET")
    assert "user.hash" not in found and found["saas.actor.type"] == "api_key"
    assert "saas.actor.hash" in found


async def test_bind_in_tasks_and_threads_reaches_the_request(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Wherever under a request it is called: asyncio's threads, anyio's, and tasks."""
    with _server(tracer):
        await asyncio.to_thread(otel_shim.bind, org_id="acme")
        assert otel_shim.current_identity().org_id == "acme"
    with tracer.start_as_current_span("POST", kind=SpanKind.SERVER):
        await anyio.to_thread.run_sync(lambda: otel_shim.bind(org_id="globex"))
        assert otel_shim.current_identity().org_id == "globex"
    with tracer.start_as_current_span("PUT", kind=SpanKind.SERVER):

        async def task() -> None:
            otel_shim.bind(org_id="initech")

        await asyncio.create_task(task())
        assert otel_shim.current_identity().org_id == "initech"
    assert [telemetry.span(n)[ORG] for n in ("GET", "POST", "PUT")] == ["acme", "globex", "initech"]


def test_bind_in_plain_threads(
    telemetry: Telemetry, tracer: trace.Tracer, threads_instrumented: None
) -> None:
    """With OpenTelemetry's instrumentation of threads, pools and threads count too; none keeps anything."""
    found: list[Identity] = []
    with ThreadPoolExecutor(1) as pool:
        with _server(tracer):
            pool.submit(otel_shim.bind, org_id="acme").result()
            assert otel_shim.current_identity().org_id == "acme"
            thread = threading.Thread(target=otel_shim.bind, kwargs={"user_id": "ada"})
            thread.start()
            thread.join()
            assert otel_shim.current_identity() == Identity("acme", "ada", "user")
            assert pool.submit(otel_shim.current_identity).result() == Identity(
                "acme", "ada", "user"
            )
        found.append(pool.submit(otel_shim.current_identity).result())
    assert found == [NOBODY]
    assert telemetry.span("GET")[ORG] == "acme"


async def test_streams_and_background_work(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """What a stream or a task started before binds or reads is the request's."""
    bound = asyncio.Event()

    async def background() -> Identity:
        await bound.wait()
        with tracer.start_as_current_span("background"):
            return otel_shim.current_identity()

    async def stream() -> AsyncIterator[int]:
        yield 1
        otel_shim.bind(org_id="acme")
        bound.set()
        with tracer.start_as_current_span("chunk"):
            yield 2

    with _server(tracer):
        task = asyncio.create_task(background())
        assert [n async for n in stream()] == [1, 2]
        assert (await task).org_id == "acme"
    assert {telemetry.span(n)[ORG] for n in ("GET", "chunk", "background")} == {"acme"}


# --- somebody else -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"org_id": "acme"}, {"org_id": "globex"}),
        ({"org_id": "a", "user_id": "u"}, {"org_id": "a", "user_id": "v"}),
    ],
)
def test_a_different_identity_never_overwrites(
    telemetry: Telemetry, tracer: trace.Tracer, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """It holds from here on; what is open belongs to nobody, the root says so, and it is counted."""
    with _server(tracer):
        otel_shim.bind(**first, actor_role="admin")
        with tracer.start_as_current_span("ended"):
            pass
        with tracer.start_as_current_span("open"):
            otel_shim.bind(**second)
            now = otel_shim.current_identity()
            assert (now.org_id, now.user_id) == (second["org_id"], second.get("user_id"))
            assert now.actor_role is None
            with tracer.start_as_current_span("later"):
                pass
    assert telemetry.span("ended")[ORG] == first["org_id"]
    assert telemetry.span("later")[ORG] == second["org_id"]
    assert "saas.actor.role" not in telemetry.span("later")
    assert telemetry.span("GET") == {SCOPE: "multi"}
    assert telemetry.span("open") == {}
    assert counters.snapshot() == {"identity_conflicts": 1}


async def test_divergence_is_local_to_its_task(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Another task of the same request never gets the identity that one of them bound."""
    go = asyncio.Event()

    async def other() -> None:
        await go.wait()
        with tracer.start_as_current_span("other"):
            assert otel_shim.current_identity().org_id != "globex"

    async def diverges() -> None:
        otel_shim.bind(org_id="globex")
        with tracer.start_as_current_span("mine"):
            pass
        go.set()

    with _server(tracer):
        otel_shim.bind(org_id="acme")
        await asyncio.gather(other(), diverges())
        with tracer.start_as_current_span("after"):
            pass
    assert telemetry.span("mine")[ORG] == "globex"
    assert ORG not in telemetry.span("other") and ORG not in telemetry.span("after")
    assert telemetry.span("GET") == {SCOPE: "multi"}


def test_request_id_survives_divergence(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """The request is the same whoever it is for."""
    with _server(tracer):
        root = context.current_root()
        assert root is not None
        root.put(root.scope, Identity(request_id="r-1"))
        otel_shim.bind(org_id="acme")
        otel_shim.bind(org_id="globex")
        with tracer.start_as_current_span("later"):
            pass
    assert telemetry.span("GET") == {"saas.request.id": "r-1", SCOPE: "multi"}
    assert telemetry.span("later") == {"saas.request.id": "r-1", ORG: "globex"}


def test_agreeing_after_divergence_is_no_conflict(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Within the task-local scope, binding adds up again."""
    with _server(tracer):
        otel_shim.bind(org_id="acme")
        otel_shim.bind(org_id="globex")
        otel_shim.bind(org_id="globex", user_id="bob")
        with tracer.start_as_current_span("later"):
            pass
    assert telemetry.span("later")[ORG] == "globex" and "user.hash" in telemetry.span("later")
    assert telemetry.span("GET") == {SCOPE: "multi"}
    assert counters.snapshot() == {"identity_conflicts": 1}


def test_job_that_binds_one_tenant_is_that_tenants(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """A job for one organisation has it on its root too."""
    with tracer.start_as_current_span("job"):
        otel_shim.bind(org_id="acme")
        with tracer.start_as_current_span("step"):
            otel_shim.bind(user_id="ada")
    assert telemetry.span("job")[ORG] == telemetry.span("step")[ORG] == "acme"
    assert SCOPE not in telemetry.span("job")
    assert counters.snapshot() == {}


def test_job_that_loops_over_tenants(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Each iteration's spans are its tenant's; the job itself is nobody's, and says so."""
    with tracer.start_as_current_span("job"):
        for org in ("acme", "globex", "initech"):
            otel_shim.bind(org_id=org)
            with tracer.start_as_current_span(org):
                pass
    assert [telemetry.span(o)[ORG] for o in ("acme", "globex", "initech")] == [
        "acme",
        "globex",
        "initech",
    ]
    assert telemetry.span("job") == {SCOPE: "multi"}


# --- sources -----------------------------------------------------------------------------------------


def _root() -> context.LocalRoot:
    root = context.current_root()
    assert root is not None
    return root


def test_sources_give_way_to_bind(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """What the application says itself goes over what was found, without a conflict."""
    with _server(tracer):
        binding.apply_sourced(_root(), {"org_id": "found", "user_id": "ada", "plan": "free"})
        otel_shim.bind(org_id="acme")
        assert otel_shim.current_identity() == Identity("acme", "ada", "user", plan="free")
        binding.apply_sourced(_root(), {"org_id": "found", "plan": "pro"})
        assert otel_shim.current_identity() == Identity("acme", "ada", "user", plan="pro")
    assert telemetry.span("GET")[ORG] == "acme"
    assert SCOPE not in telemetry.span("GET")
    assert counters.snapshot() == {}


def test_better_source_replaces_what_was_found(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Sources correct each other, and what proved wrong is taken off the open spans."""
    with _server(tracer):
        binding.apply_sourced(_root(), {"org_id": "found", "user_id": "ada"})
        binding.apply_sourced(_root(), {"org_id": "better"})
    assert telemetry.span("GET")[ORG] == "better"
    assert counters.snapshot() == {}


def test_sources_leave_a_mixed_request_alone(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Where two were bound, nothing found names the whole."""
    with _server(tracer):
        otel_shim.bind(org_id="acme")
        otel_shim.bind(org_id="globex")
        binding.apply_sourced(_root(), {"org_id": "found"})
    assert telemetry.span("GET") == {SCOPE: "multi"}


# --- blocks ------------------------------------------------------------------------------------------


def test_block_names_what_is_inside_only(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """The root and what comes after the block stay as they were."""
    with tracer.start_as_current_span("job"):
        with (
            otel_shim.identity(org_id="acme", user_id="ada"),
            tracer.start_as_current_span("inside"),
        ):
            pass
        with tracer.start_as_current_span("after"):
            pass
    assert telemetry.span("inside")[ORG] == "acme"
    assert telemetry.span("job") == {} and telemetry.span("after") == {}
    assert counters.snapshot() == {}


def test_blocks_nest(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """An inner block completes the outer one, or replaces it as a whole where it names somebody else."""
    with tracer.start_as_current_span("job"), otel_shim.identity(org_id="acme", actor_role="admin"):
        with otel_shim.identity(user_id="ada"):
            assert otel_shim.current_identity() == Identity("acme", "ada", "user", "admin")
        with otel_shim.identity(org_id="globex"):
            assert otel_shim.current_identity() == Identity("globex")
        assert otel_shim.current_identity() == Identity("acme", actor_role="admin")


def test_bind_in_a_block_stays_in_it(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Binding more of the same inside completes the block; the root is not touched."""
    with tracer.start_as_current_span("job"):
        with otel_shim.identity(org_id="acme"), tracer.start_as_current_span("inside"):
            otel_shim.bind(user_id="ada")
            assert otel_shim.current_identity() == Identity("acme", "ada", "user")
        assert otel_shim.current_identity() == NOBODY
    assert "user.hash" in telemetry.span("inside")
    assert telemetry.span("job") == {}


def test_bind_of_another_in_a_block_ends_with_the_block(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Inside, what was open becomes nobody's; outside, nothing changed."""
    with _server(tracer):
        otel_shim.bind(org_id="own")
        with otel_shim.identity(org_id="acme"), tracer.start_as_current_span("inside"):
            otel_shim.bind(org_id="globex")
            with tracer.start_as_current_span("later"):
                pass
        assert otel_shim.current_identity() == Identity("own")
    assert telemetry.span("later")[ORG] == "globex"
    assert ORG not in telemetry.span("inside")
    assert telemetry.span("GET")[ORG] == "own"


def test_block_passes_errors_and_restores(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """An error leaves the block unchanged, and so does the identity around it."""
    error = ValueError("the application's")
    with tracer.start_as_current_span("job", record_exception=False):
        with pytest.raises(ValueError) as caught, otel_shim.identity(org_id="acme"):  # noqa: PT011
            raise error
        assert caught.value is error
        assert otel_shim.current_identity() == NOBODY


def test_block_travels_with_copied_contexts(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A context copied inside keeps the block's identity after it closed, while the root is open."""
    with tracer.start_as_current_span("job"):
        with otel_shim.identity(org_id="acme"):
            copied = contextvars.copy_context()
        assert otel_shim.current_identity() == NOBODY
        assert copied.run(otel_shim.current_identity).org_id == "acme"
    assert copied.run(otel_shim.current_identity) == NOBODY


def test_block_left_in_another_context_is_silent(
    telemetry: Telemetry, tracer: trace.Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream closed by another task leaves its block there: no error, and no log of one."""

    async def stream() -> AsyncIterator[int]:
        with otel_shim.identity(org_id="acme"):
            yield 1
            yield 2

    async def closes(generator: Any) -> None:
        await generator.aclose()

    async def main() -> None:
        generator = stream()
        await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
        await asyncio.create_task(closes(generator))

    with tracer.start_as_current_span("job"):
        asyncio.run(main())
    assert caplog.records == []


# --- at the same time --------------------------------------------------------------------------------


def test_binding_from_many_threads_loses_nothing(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """Threads of one request that bind different fields at once complete each other."""
    names = [f"field{n}" for n in range(8)]
    with _server(tracer):
        here = [contextvars.copy_context() for _ in names]
        start = threading.Barrier(len(names))
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)

        def work(copied: contextvars.Context, name: str) -> None:
            start.wait()
            for n in range(100):
                copied.run(otel_shim.bind, **{f"{name}_{n}": n})  # type: ignore[arg-type]

        threads = [
            threading.Thread(target=work, args=pair) for pair in zip(here, names, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(switch)
        assert len(otel_shim.current_identity().extra) == 800
    assert counters.snapshot() == {}


def test_two_threads_that_disagree_are_always_a_conflict(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """However they interleave, the later of two organisations never replaces the first."""
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for n in range(50):
        with tracer.start_as_current_span(f"GET {n}", kind=SpanKind.SERVER):
            start = threading.Barrier(2)
            threads = [
                threading.Thread(target=contextvars.copy_context().run, args=(_bind_at, start, org))
                for org in ("acme", "globex")
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    sys.setswitchinterval(switch)
    assert [telemetry.span(f"GET {n}") for n in range(50)] == [{SCOPE: "multi"}] * 50
    assert counters.snapshot() == {"identity_conflicts": 50}


def _bind_at(start: threading.Barrier, org: str) -> None:
    start.wait()
    otel_shim.bind(org_id=org)
