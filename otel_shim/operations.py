"""Naming the work: ``otel_shim.operation`` as block and as decorator."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Token
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, Status, StatusCode

from otel_shim import _semconv as semconv
from otel_shim import context, counters, sources
from otel_shim._guard import guarded

_F = TypeVar("_F", bound=Callable[..., Any])
_tracer = trace.get_tracer("otel_shim")
_UNNAMED = "unnamed.operation"
JobMeter = Callable[[str, float, "BaseException | None", Span], object]
"""Takes a job's operation, its seconds, the error that ended it, and its span."""
_job_meter: JobMeter | None = None


def use_job_meter(meter: JobMeter | None) -> JobMeter | None:
    """Set what is told of each job that ends, and return what was; called once, when the distro is wired."""
    global _job_meter
    before, _job_meter = _job_meter, meter
    return before


class _Work:
    """The span of an operation, and where it is a job of its own, when that started."""

    __slots__ = ("name", "span", "started")

    def __init__(self, name: str, span: Span, job: bool) -> None:
        self.name = name
        self.span = span
        self.started = time.perf_counter() if job else None


class Operation:
    """A span named after an operation, around a block or around each call of a function.

    An exception marks the span as failed, by its type only, and passes unchanged.
    """

    def __init__(self, name: str) -> None:
        self._name = _usable(name)
        self._open: list[tuple[_Work, Any]] = []

    def __enter__(self) -> None:
        started = _start(self._name)
        if started is not None:
            work, inside = started
            self._open.append((work, attach(inside)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open:
            mine = self._innermost()
            self._open.remove(mine)
            context.leave(mine[1])
            _end(mine[0], error)

    def _innermost(self) -> tuple[_Work, Any]:
        """The block that ends here; several tasks may be inside of one operation object."""
        current = trace.get_current_span()
        here = self._open.copy()
        return next((block for block in reversed(here) if block[0].span is current), here[-1])

    def __call__(self, function: _F) -> _F:
        """Decorate a function, coroutine function, generator or async generator function."""
        for applies, wrap in _WRAPPERS:
            if applies(function):
                return cast(_F, functools.wraps(function)(wrap(self._name, function)))
        return cast(_F, functools.wraps(function)(_wrap_function(self._name, function)))


@guarded(default=_UNNAMED)
def _usable(name: Any) -> str:
    """The name if it can be exported: one that cannot would lose the whole batch of its span."""
    text = sources.canonical(name)
    if text is None:
        counters.add("operation_rejected")
    return text or _UNNAMED


@guarded(default=None)
def _start(name: str) -> tuple[_Work, Context]:
    """Start the span; the first operation of a request or job names its root too."""
    root = context.current_root()
    job = _is_job(root)
    if root is not None:
        _name_root(root, name)
    span = _tracer.start_span(name, attributes={semconv.SAAS_OPERATION: name})
    if root is None and (place := context.place_of(span)) is not None:
        place.root.operation = name
    return _Work(name, span, job), context.with_operation(name, trace.set_span_in_context(span))


def _is_job(root: context.LocalRoot | None) -> bool:
    """Whether an operation that starts is a job: nothing is above it but, at most, an answered request."""
    current = trace.get_current_span()
    if root is None:
        return not current.get_span_context().is_valid
    return current is root.span() and not current.is_recording()


def _name_root(root: context.LocalRoot, name: str) -> None:
    if root.operation not in (None, semconv.OPERATION_HTTP_REQUEST):
        return
    root.operation = name
    span = root.span()
    if span is not None and span.is_recording():
        span.set_attribute(semconv.SAAS_OPERATION, name)


@guarded(default=None)
def _end(work: _Work, error: BaseException | None) -> None:
    if isinstance(error, (GeneratorExit, StopIteration)):
        error = None
    if error is not None:
        work.span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        work.span.set_status(Status(StatusCode.ERROR))
    work.span.end()
    if work.started is not None and _job_meter is not None:
        _job_meter(work.name, time.perf_counter() - work.started, error, work.span)


def _wrap_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with Operation(name):
            return function(*args, **kwargs)

    return call


def _wrap_coroutine(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with Operation(name):
            return await function(*args, **kwargs)

    return call


class _Steps:
    """The span of a generator: current while it runs, not while its caller does.

    What the generator enters in one step (a block, another span) it is still in at the next.
    """

    def __init__(self, name: str) -> None:
        started = _start(name)
        self._work: _Work | None = started[0] if started is not None else None
        self._inside: Context | None = started[1] if started is not None else None
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._token = attach(self._inside) if self._inside is not None else None

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            self._inside = get_current()
            context.leave(self._token)

    def end(self, error: BaseException | None = None) -> None:
        if self._work is not None:
            _end(self._work, error)


def _wrap_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        steps = _Steps(name)
        generator = function(*args, **kwargs)
        resume: Callable[[], Any] = functools.partial(next, generator)
        try:
            while True:
                with steps:
                    item = resume()
                resume = yield from _suspended(generator, item, steps)
        except StopIteration as stop:
            steps.end()
            return stop.value
        except BaseException as error:
            steps.end(error)
            raise

    return call


def _suspended(
    generator: Generator[Any, Any, Any], item: Any, steps: _Steps
) -> Generator[Any, Any, Callable[[], Any]]:
    """Hand an item to the caller; what the caller does decides how the generator goes on."""
    try:
        sent = yield item
    except GeneratorExit:
        with steps:
            generator.close()
        raise
    except BaseException as error:  # noqa: BLE001 - handed on to the generator, unchanged
        return functools.partial(generator.throw, error)
    return functools.partial(generator.send, sent)


def _wrap_async_generator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps = _Steps(name)
        generator = function(*args, **kwargs)
        resume: Callable[[], Any] = generator.__anext__
        try:
            while True:
                with steps:
                    item = await resume()
                try:
                    sent = yield item
                except GeneratorExit:
                    with steps:
                        await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - handed on, unchanged
                    resume = functools.partial(generator.athrow, error)
                else:
                    resume = functools.partial(generator.asend, sent)
        except StopAsyncIteration:
            steps.end()
        except BaseException as error:
            steps.end(error)
            raise

    return call


def _is_coroutine(function: Callable[..., Any]) -> bool:
    """A coroutine function, or an object that is called like one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is looked at
    )


_WRAPPERS: tuple[tuple[Callable[[Any], bool], Callable[..., Any]], ...] = (
    (inspect.isasyncgenfunction, _wrap_async_generator),
    (_is_coroutine, _wrap_coroutine),
    (inspect.isgeneratorfunction, _wrap_generator),
)
