"""otel_shim.operations: naming the work changes nothing of what it does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

import otel_shim
from otel_shim import context, counters
from tests.unit.telemetry import Telemetry

NAME = "planning.publish"
SECONDS = 60


@pytest.fixture(autouse=True)
def _nothing_stays_open(telemetry: Telemetry) -> Iterator[None]:
    """In each of these tests every span ends, and no fault of ours is hidden."""
    yield
    assert telemetry.started() == len(telemetry.spans())
    assert counters.snapshot() == {}


def _current() -> str | None:
    return getattr(trace.get_current_span(), "name", None)


def _only(telemetry: Telemetry) -> ReadableSpan:
    (span,) = telemetry.spans()
    return span


def _assert_failed(span: ReadableSpan, error: type[BaseException]) -> None:
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert dict(span.attributes or {}) == {"saas.operation": NAME, "error.type": error.__qualname__}
    assert span.events == ()


def _assert_ended_well(span: ReadableSpan) -> None:
    assert span.name == NAME
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {"saas.operation": NAME}


# --- as a block ---------------------------------------------------------------------------------------


def test_block_is_a_span(telemetry: Telemetry) -> None:
    """The span has the operation's name and tag, and is current inside only."""
    with otel_shim.operation(NAME):
        assert _current() == NAME
        assert context.correlation()["saas.operation"] == NAME
    assert _current() is None
    _assert_ended_well(_only(telemetry))


def test_error_in_a_block_passes_unchanged(telemetry: Telemetry) -> None:
    """The span is marked by the error's type; its message is never recorded."""
    error = KeyError("personal")
    with pytest.raises(KeyError) as caught, otel_shim.operation(NAME):
        raise error
    assert caught.value is error
    _assert_failed(_only(telemetry), KeyError)


def test_block_may_be_shared_by_tasks(telemetry: Telemetry) -> None:
    """One operation object at module level, entered by many tasks at once: each has its own span."""
    shared = otel_shim.operation(NAME)
    spans: list[trace.Span] = []

    async def work(turns: int) -> None:
        with shared:
            mine = trace.get_current_span()
            spans.append(mine)
            for _ in range(turns):
                await asyncio.sleep(0)
            assert trace.get_current_span() is mine
        assert not mine.is_recording()
        assert _current() is None

    async def main() -> None:
        await asyncio.gather(*(work(n) for n in (5, 1, 3, 0, 4)))

    asyncio.run(main())
    assert len(telemetry.spans()) == len(set(spans)) == 5


def test_block_may_be_shared_by_threads(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """None ends what is another's, also where a span of its own is still current at the end."""
    shared = otel_shim.operation(NAME)
    first, second, done = threading.Event(), threading.Event(), threading.Event()

    def leaves_a_span_open() -> None:
        with shared:
            mine = trace.get_current_span()
            left = tracer.start_span("left")
            attach(trace.set_span_in_context(left))
            first.set()
            assert second.wait(SECONDS)
        left.end()
        ended.append(not mine.is_recording())
        done.set()

    def stays() -> None:
        assert first.wait(SECONDS)
        with shared:
            mine = trace.get_current_span()
            second.set()
            assert done.wait(SECONDS)
            ended.append(mine.is_recording())
        ended.append(not mine.is_recording())

    ended: list[bool] = []
    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(stays), pool.submit(leaves_a_span_open)]:
            each.result(SECONDS)
    assert ended == [True] * 3


def test_block_left_in_another_context(telemetry: Telemetry) -> None:
    """It ends once it is certain that it is nobody else's: at once where no other is open."""
    shared = otel_shim.operation(NAME)
    spans: list[trace.Span] = []

    def stream() -> Generator[None, None, None]:
        with shared:
            spans.append(trace.get_current_span())
            yield

    alone = stream()
    copy_context().run(next, alone)
    alone.close()
    assert not spans[0].is_recording()
    first, second = stream(), stream()
    copy_context().run(next, first)
    copy_context().run(next, second)
    copy_context().run(second.close)
    with shared:
        mine = trace.get_current_span()
        assert spans[1].is_recording() and spans[2].is_recording()
    assert not mine.is_recording()
    copy_context().run(first.close)
    assert not any(span.is_recording() for span in spans)


def test_block_may_be_entered_again_inside(telemetry: Telemetry) -> None:
    """A recursive use nests."""
    shared = otel_shim.operation(NAME)
    with shared:
        outer = trace.get_current_span()
        with shared:
            assert trace.get_current_span() is not outer
        assert trace.get_current_span() is outer
    assert len(telemetry.spans()) == 2


# --- which span has which operation ----------------------------------------------------------------------


def test_first_operation_of_a_request_names_it(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """The server span takes the first operation; later ones name their own span only."""
    with tracer.start_as_current_span("GET /", kind=SpanKind.SERVER):
        root = context.current_root()
        assert root is not None
        root.operation = "http.request"
        with otel_shim.operation("planning.publish"), otel_shim.operation("billing.charge"):
            assert context.correlation()["saas.operation"] == "billing.charge"
        assert context.correlation()["saas.operation"] == "planning.publish"
    assert telemetry.span("GET /")["saas.operation"] == "planning.publish"
    assert telemetry.span("billing.charge")["saas.operation"] == "billing.charge"


def test_operation_that_is_the_root_keeps_its_name(telemetry: Telemetry) -> None:
    """A job's operations do not rename the job."""
    with otel_shim.operation("audit.retention.job"), otel_shim.operation("planning.publish"):
        pass
    assert telemetry.span("audit.retention.job") == {"saas.operation": "audit.retention.job"}
    assert telemetry.span("planning.publish") == {"saas.operation": "planning.publish"}


# --- as a decorator -----------------------------------------------------------------------------------


def test_function(telemetry: Telemetry) -> None:
    """Arguments and result pass; name, documentation and signature stay."""

    @otel_shim.operation(NAME)
    def publish(a: int, *, b: int = 2) -> tuple[int, str | None]:
        """Publish."""
        return a + b, _current()

    assert publish(1, b=3) == (4, NAME)
    assert publish.__name__ == "publish" and publish.__doc__ == "Publish."
    assert list(inspect.signature(publish).parameters) == ["a", "b"]
    _assert_ended_well(_only(telemetry))


def test_function_that_fails(telemetry: Telemetry) -> None:
    """The error is the same object."""
    error = LookupError("personal")

    @otel_shim.operation(NAME)
    def publish() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        publish()
    assert caught.value is error
    _assert_failed(_only(telemetry), LookupError)


def test_function_that_lets_a_stop_iteration_out(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """That of an iterator which nobody caught is an error as any other."""

    @otel_shim.operation(NAME)
    def first() -> Any:
        return next(iter(()))

    with tracer.start_as_current_span("above"), pytest.raises(StopIteration):
        first()
    (span,) = [span for span in telemetry.spans() if span.name == NAME]
    _assert_failed(span, StopIteration)


async def test_coroutine_function(telemetry: Telemetry) -> None:
    """Still a coroutine function, and current over its awaits."""

    @otel_shim.operation(NAME)
    async def publish(n: int) -> tuple[int, str | None]:
        await asyncio.sleep(0)
        return n, _current()

    assert inspect.iscoroutinefunction(publish)
    assert await publish(1) == (1, NAME)
    assert _current() is None
    _assert_ended_well(_only(telemetry))


async def test_coroutine_that_is_cancelled(telemetry: Telemetry) -> None:
    """Cancellation passes, and ends the span."""
    entered = asyncio.Event()

    @otel_shim.operation(NAME)
    async def publish() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(publish())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    _assert_failed(_only(telemetry), asyncio.CancelledError)


def test_methods(telemetry: Telemetry) -> None:
    """Methods, static and class methods, and partial functions are decorated like functions."""

    class Planning:
        @otel_shim.operation(NAME)
        def method(self) -> str | None:
            return _current()

        @staticmethod
        @otel_shim.operation(NAME)
        def static() -> str | None:
            return _current()

        @classmethod
        @otel_shim.operation(NAME)
        def of_class(cls) -> str | None:
            return _current()

    partial = otel_shim.operation(NAME)(functools.partial(_current))
    assert [Planning().method(), Planning.static(), Planning.of_class(), partial()] == [NAME] * 4


async def test_object_with_async_call(telemetry: Telemetry) -> None:
    """An object whose ``__call__`` is a coroutine function is awaited inside the span."""

    class Publish:
        async def __call__(self) -> str | None:
            await asyncio.sleep(0)
            return _current()

    assert await otel_shim.operation(NAME)(Publish())() == NAME
    _assert_ended_well(_only(telemetry))


# --- generators ------------------------------------------------------------------------------------------


@otel_shim.operation(NAME)
def _echo(seen: list[Any]) -> Generator[str | None, Any, str]:
    """Yields the current span's name; notes what is sent and thrown; returns at ``stop``."""
    try:
        while True:
            try:
                got = yield _current()
            except LookupError as error:
                got = error
            seen.append((got, _current()))
            if got == "stop":
                return "result"
            if got == "fail":
                raise ArithmeticError("personal")
    finally:
        seen.append(("closed", _current()))


def test_generator_is_current_only_while_it_runs(telemetry: Telemetry) -> None:
    """Between its steps the caller's span is current, not the generator's."""
    generator = _echo([])
    assert inspect.isgeneratorfunction(_echo)
    assert telemetry.started() == 0
    for _ in range(3):
        assert next(generator) == NAME
        assert _current() is None
    generator.close()
    _assert_ended_well(_only(telemetry))


def test_generator_takes_what_is_sent_and_thrown(telemetry: Telemetry) -> None:
    """``send``, ``throw`` and the returned value pass through, inside the span."""
    seen: list[Any] = []
    generator = _echo(seen)
    next(generator)
    error = LookupError("thrown")
    assert generator.send("a") == NAME
    assert generator.throw(error) == NAME
    with pytest.raises(StopIteration) as stopped:
        generator.send("stop")
    assert stopped.value.value == "result"
    assert seen == [("a", NAME), (error, NAME), ("stop", NAME), ("closed", NAME)]
    _assert_ended_well(_only(telemetry))


def test_generator_result_of_yield_from(telemetry: Telemetry) -> None:
    """``yield from`` gets the returned value."""

    def outer() -> Generator[Any, Any, str]:
        return (yield from _echo([]))

    generator = outer()
    next(generator)
    with pytest.raises(StopIteration) as stopped:
        generator.send("stop")
    assert stopped.value.value == "result"


def test_generator_that_fails(telemetry: Telemetry) -> None:
    """Its error passes, and marks the span."""
    generator = _echo([])
    next(generator)
    with pytest.raises(ArithmeticError, match="personal"):
        generator.send("fail")
    _assert_failed(_only(telemetry), ArithmeticError)


def test_generator_does_not_handle_what_is_thrown(telemetry: Telemetry) -> None:
    """An error thrown in that it lets pass comes out unchanged."""
    generator = _echo([])
    next(generator)
    error = OSError("thrown")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        generator.throw(error)
    assert caught.value is error
    _assert_failed(_only(telemetry), OSError)


@pytest.mark.parametrize("how", ["close", "collected"])
def test_generator_closed_early(how: str, telemetry: Telemetry) -> None:
    """Its cleanup runs inside the span, which ends; being closed is no failure."""
    seen: list[Any] = []
    generator = _echo(seen)
    next(generator)
    if how == "close":
        generator.close()
    del generator
    assert seen == [("closed", NAME)]
    _assert_ended_well(_only(telemetry))


def test_generator_never_started(telemetry: Telemetry) -> None:
    """No step, no span."""
    _echo([]).close()
    assert telemetry.spans() == ()


@otel_shim.operation(NAME)
async def _aecho(seen: list[Any]) -> AsyncGenerator[str | None, Any]:
    """Like ``_echo``, with awaits."""
    try:
        while True:
            try:
                got = yield _current()
            except LookupError as error:
                got = error
            await asyncio.sleep(0)
            seen.append((got, _current()))
            if got == "stop":
                return
            if got == "fail":
                raise ArithmeticError("personal")
    finally:
        await asyncio.sleep(0)
        seen.append(("closed", _current()))


async def test_async_generator(telemetry: Telemetry) -> None:
    """Current only while it runs; ``asend`` and ``athrow`` pass through."""
    seen: list[Any] = []
    generator = _aecho(seen)
    assert inspect.isasyncgenfunction(_aecho)
    error = LookupError("thrown")
    assert await anext(generator) == NAME
    assert _current() is None
    assert await generator.asend("a") == NAME
    assert await generator.athrow(error) == NAME
    assert _current() is None
    with pytest.raises(StopAsyncIteration):
        await generator.asend("stop")
    assert seen == [("a", NAME), (error, NAME), ("stop", NAME), ("closed", NAME)]
    _assert_ended_well(_only(telemetry))


async def test_async_generator_that_fails(telemetry: Telemetry) -> None:
    """Its error passes, and marks the span."""
    generator = _aecho([])
    await anext(generator)
    with pytest.raises(ArithmeticError, match="personal"):
        await generator.asend("fail")
    _assert_failed(_only(telemetry), ArithmeticError)


async def test_async_generator_closed_early(telemetry: Telemetry) -> None:
    """Its cleanup, awaits included, runs inside the span, also from another task."""
    seen: list[Any] = []
    generator = _aecho(seen)
    await anext(generator)
    await asyncio.create_task(generator.aclose())
    assert seen == [("closed", NAME)]
    _assert_ended_well(_only(telemetry))


async def test_async_generator_cancelled_in_a_step(telemetry: Telemetry) -> None:
    """Cancellation reaches the generator, and ends the span."""
    waits = asyncio.Event()

    @otel_shim.operation(NAME)
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        waits.set()
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in stream():
            pass

    task = asyncio.create_task(consume())
    await waits.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    _assert_failed(_only(telemetry), asyncio.CancelledError)


def test_spans_inside_a_generator_are_its_children(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """What the generator starts is below it; what its caller starts meanwhile is not."""

    @otel_shim.operation(NAME)
    def items() -> Generator[int, None, None]:
        for n in range(2):
            with tracer.start_as_current_span("inside"):
                pass
            yield n

    for _ in items():
        with tracer.start_as_current_span("outside"):
            pass
    spans = {s.name: s for s in telemetry.spans()}
    inside, operation = spans["inside"], spans[NAME]
    assert inside.parent is not None and operation.context is not None
    assert inside.parent.span_id == operation.context.span_id
    assert spans["outside"].parent is None


def test_blocks_of_a_generator_span_its_steps(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A block that a generator is in when it yields holds in its next step, and not for its caller."""

    @otel_shim.operation(NAME)
    def items() -> Generator[str | None, None, None]:
        with otel_shim.identity(org_id="acme"), tracer.start_as_current_span("inner"):
            yield otel_shim.current_identity().org_id
            yield otel_shim.current_identity().org_id
        yield otel_shim.current_identity().org_id

    with tracer.start_as_current_span("job"):
        seen = [(org, otel_shim.current_identity().org_id, _current()) for org in items()]
    assert seen == [("acme", None, "job"), ("acme", None, "job"), (None, None, "job")]
    assert telemetry.span("inner")["saas.org.id"] == "acme"


async def test_bind_in_a_streaming_job_holds_for_its_next_steps(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """What an async generator binds under a job holds for the rest of it."""

    @otel_shim.operation(NAME)
    async def items() -> AsyncGenerator[str | None, None]:
        otel_shim.bind(org_id="acme")
        yield otel_shim.current_identity().org_id
        yield otel_shim.current_identity().org_id

    with tracer.start_as_current_span("job"):
        assert [org async for org in items()] == ["acme", "acme"]
