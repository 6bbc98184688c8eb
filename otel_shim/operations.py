"""Naming the work: ``otel_shim.operation`` and ``otel_shim.job``, as block and as decorator.

An operation is a span of that name, where there is work above it. Under nothing, and after the answer of
a request, it is a run of a job (see ``jobs``); what is declared with ``job`` always is one.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar, Token
from datetime import tzinfo
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, Status, StatusCode

from otel_shim import _semconv as semconv
from otel_shim import context, counters, jobs, locks, schedule, sources
from otel_shim._guard import guarded, logger
from otel_shim.heartbeats import Declaration
from otel_shim.jobs import Run, Work
from otel_shim.model import Scalar

_F = TypeVar("_F", bound=Callable[..., Any])
_tracer = trace.get_tracer("otel_shim")
_UNNAMED = "unnamed.operation"


class _Step:
    """An operation that is part of something: its span, and the context to go on in."""

    __slots__ = ("inside", "span")

    def __init__(self, span: Span, inside: Context) -> None:
        self.span = span
        self.inside = inside


_Started = _Step | Work
_Opening = Callable[[], "_Started | None"]


class _Entry:
    """One entering of a block; ``started`` is None where an adapter's run is the block's too."""

    __slots__ = ("operation", "over", "started", "token")

    def __init__(
        self, operation: Operation, started: _Started | None, token: Token[Context] | None
    ) -> None:
        self.operation = operation
        self.started = started
        self.token = token
        self.over = False


_entered: ContextVar[tuple[_Entry, ...]] = ContextVar("otel_shim_entered", default=())
"""The blocks that this task or thread is in: one object may be entered by many at once."""
_settling = threading.Lock()
"""Never waited for: the garbage collector may close a generator while this thread holds it."""


def _renew_settling() -> None:
    global _settling
    _settling = threading.Lock()


locks.in_children(_renew_settling)


def _still_open() -> tuple[_Entry, ...]:
    entered = _entered.get()
    return tuple([entry for entry in entered if not entry.over]) if entered else entered


class Operation:
    """A span named after an operation, around a block or around each call of a function.

    An exception marks the span as failed, by its type only, and passes unchanged.
    """

    def __init__(self, name: str) -> None:
        self._name = _usable(name)
        self._open: list[_Entry] = []
        self._left: list[BaseException | None] = []

    def __enter__(self) -> None:
        started = self.begin()
        token = attach(started.inside) if started is not None else None
        entry = _Entry(self, started, token)
        self._open.append(entry)
        _entered.set((*_still_open(), entry))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mine = self._innermost()
        if mine is not None:
            self._end(mine, error)
            _entered.set(_still_open())
        else:
            self._left.append(error)
        if self._left:
            self._end_left()

    def _innermost(self) -> _Entry | None:
        for entry in reversed(_entered.get()):
            if entry.operation is self and not entry.over:
                return entry
        return None

    def _end(self, entry: _Entry, error: BaseException | None) -> None:
        entry.over = True
        self._open.remove(entry)
        if entry.token is not None:
            context.leave(entry.token)
        if entry.started is not None:
            _end(entry.started, error)

    def _end_left(self) -> None:
        """End what was left in another context than it was entered in: a generator that somebody else closes.

        Which one that was nobody can tell while others are inside of the same object. It waits until all
        that are open were left, and ends nobody else's.
        """
        while self._left and (settling := _settling).acquire(blocking=False):
            try:
                again = self._settle()
            finally:
                settling.release()
            if not again:
                break

    def _settle(self) -> bool:
        left = len(self._left)  # before the copy: what is entered in between is not over
        here = self._open.copy()
        if left != len(here):
            return False
        errors = self._left[:left]
        del self._left[:left]
        for entry, error in zip(here, errors, strict=True):
            self._end(entry, error)
        return True

    def begin(self) -> _Started | None:
        """Start the span of one block or call; None where there is none to start."""
        return _start(self._name)

    def __call__(self, function: _F) -> _F:
        """Decorate a function, coroutine function, generator or async generator function."""
        for applies, wrap in _WRAPPERS:
            if applies(function):
                return cast(_F, functools.wraps(function)(wrap(self.begin, function)))
        return cast(_F, functools.wraps(function)(_wrap_function(self.begin, function)))


class Job(Operation):
    """A declared job: each block or call is a run, a trace of its own linked to what is above it."""

    def __init__(self, declaration: Declaration) -> None:
        super().__init__(declaration.name)
        jobs.declare(declaration)

    def begin(self) -> _Started | None:
        """Start a run, unless an adapter has already started this one."""
        return _start_run(self._name)

    def __call__(self, function: _F) -> _F:
        """Decorate a function of any kind; a scheduler that runs it finds its name."""
        decorated = super().__call__(function)
        jobs.mark(decorated, self._name)
        return decorated


@guarded(default=_UNNAMED)
def _usable(name: Any) -> str:
    """The name if it can be exported: one that cannot would lose the whole batch of its span."""
    text = sources.canonical(name)
    if text is None:
        counters.add("operation_rejected")
    return text or _UNNAMED


def declared(
    name: Any,
    schedule_text: Any = None,
    zone: tzinfo | str | None = None,
    *,
    max_runtime: Any = None,
    critical: bool = False,
    references: dict[str, Any] | None = None,
) -> Declaration:
    """What a decorator declares; what cannot be used is left out, counted, and logged with the fix."""
    usable = _usable(name)
    planned = _schedule(usable, schedule_text, zone)
    return Declaration(
        usable,
        planned.text if planned is not None else None,
        planned.period if planned is not None else None,
        _seconds(usable, max_runtime),
        bool(critical),
        _references(references or {}),
    )


_parsed = functools.lru_cache(maxsize=256)(schedule.parse)
"""A job that is a block is declared each time."""


@guarded(default=None)
def _schedule(name: str, text: Any, zone: tzinfo | str | None) -> schedule.Schedule | None:
    if text is None:
        return None
    try:
        return _parsed(text, zone) if isinstance(text, str) else schedule.parse(text, zone)
    except schedule.ScheduleError as error:
        counters.add("job_declaration_rejected")
        logger.error("job %s: %s. It runs, and nobody is told when it does not", name, error)
        return None


@guarded(default=None)
def _seconds(name: str, max_runtime: Any) -> float | None:
    try:
        return jobs.seconds_of(max_runtime)
    except ValueError as error:
        counters.add("job_declaration_rejected")
        logger.error("job %s: max_runtime is left out: %s", name, error)
        return None


@guarded(default={})
def _references(values: dict[str, Any]) -> dict[str, Scalar]:
    """GDPR references by their attribute; one that is no identifier is left out and counted."""
    found: dict[str, Scalar] = {}
    for name, value in values.items():
        if value is None:
            continue
        text = sources.canonical(value)
        if text is None:
            counters.add("job_declaration_rejected")
        else:
            found[semconv.BINDABLE[name]] = text
    return found


@guarded(default=None)
def _start(name: str) -> _Started | None:
    """Start the span; the first operation of a request or job names its root too."""
    root = context.current_root()
    if _is_job(root):
        return _start_undeclared(name, root)
    if root is not None:
        _name_root(root, name)
    span = _tracer.start_span(name, attributes={semconv.SAAS_OPERATION: name})
    return _Step(span, context.with_operation(name, trace.set_span_in_context(span)))


def _start_undeclared(name: str, root: context.LocalRoot | None) -> Work | None:
    """Start a run of which nothing was said: where it stands, with the identity that holds there."""
    if root is not None:
        _name_root(root, name)
    work = jobs.start_part(Run(name, described=False), get_current())
    if root is None and work is not None and (place := context.place_of(work.span)) is not None:
        place.root.operation = name
    return work


@guarded(default=None)
def _start_run(name: str) -> Work | None:
    """Start a run by a call of a decorated function; what is above it is its trigger."""
    if jobs.adopted(name):
        return None
    above = trace.get_current_span().get_span_context()
    outside = context.opened_outside(None) if not above.is_valid else None
    manual = semconv.SAAS_JOB_TRIGGER_MANUAL if above.is_valid else None
    return jobs.start_run(Run(name, trigger=manual, link=above, scope=outside))


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
def _end(started: _Started, error: BaseException | None) -> None:
    if isinstance(started, Work):
        jobs.end_run(started, error)
        return
    if error is not None and not isinstance(error, GeneratorExit):
        started.span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        started.span.set_status(Status(StatusCode.ERROR))
    started.span.end()


class _Call:
    """One call of a decorated function."""

    __slots__ = ("_opening", "_started", "_token")

    def __init__(self, opening: _Opening) -> None:
        self._opening = opening

    def __enter__(self) -> None:
        self._started = self._opening()
        self._token = attach(self._started.inside) if self._started is not None else None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None and self._started is not None:
            context.leave(self._token)
            _end(self._started, error)


def _wrap_function(opening: _Opening, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _Call(opening):
            return function(*args, **kwargs)

    return call


def _wrap_coroutine(opening: _Opening, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with _Call(opening):
            return await function(*args, **kwargs)

    return call


class _Steps:
    """The span of a generator: current while it runs, not while its caller does.

    What the generator enters in one step (a block, another span) it is still in at the next.
    """

    def __init__(self, opening: _Opening) -> None:
        self._started = opening()
        self._inside = self._started.inside if self._started is not None else None
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._token = attach(self._inside) if self._inside is not None else None

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            self._inside = get_current()
            context.leave(self._token)

    def end(self, error: BaseException | None = None) -> None:
        if self._started is not None:
            _end(self._started, error)


def _wrap_generator(opening: _Opening, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        steps = _Steps(opening)
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


def _wrap_async_generator(opening: _Opening, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps = _Steps(opening)
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
