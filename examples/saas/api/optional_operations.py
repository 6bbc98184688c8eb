"""OPTIONAL: what operators get from otel-shim; without the package all of it does nothing."""

import hmac
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header

from .errors import AppError
from .settings import settings

try:
    from opentelemetry import trace
    from opentelemetry.instrumentation.utils import suppress_instrumentation
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    import otel_shim
    from otel_shim import ops
except ModuleNotFoundError as missing:
    if not (missing.name or "").startswith(("otel_shim", "opentelemetry")):
        raise
    INSTALLED = False
else:
    INSTALLED = True

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def operators_only(x_operator_token: Annotated[str, Header()] = "") -> None:
    """403 without the operators' token, and for everybody where none is set."""
    expected = settings.operator_token
    if not expected or not hmac.compare_digest(x_operator_token.encode(), expected.encode()):
        raise AppError(403, "operators_only", "only for operators")


def install(app: FastAPI) -> None:
    """Mount the operational summary."""
    if INSTALLED:
        app.include_router(ops.router(dependency=operators_only))


def unwatched() -> AbstractContextManager[object]:
    """A block whose queries make no spans: looking at figures is not work of anybody's."""
    return suppress_instrumentation() if INSTALLED else nullcontext()


def watched_job(name: str, **declared: Any) -> Callable[[AnyFunction], AnyFunction]:
    """Let operators know when a job is due, how long it may take, and each time how it went."""
    return otel_shim.job(name, **declared) if INSTALLED else _unchanged


def job_items(read: int = 0, written: int = 0, rejected: int = 0, filtered: int = 0) -> None:
    """Add to what the job at work took in, and to what became of it."""
    if INSTALLED:
        otel_shim.job_items(read=read, written=written, rejected=rejected, filtered=filtered)


def job_backlog(before: int, after: int) -> None:
    """Say how much waited for the job at work when it started, and how much waits now."""
    if INSTALLED:
        otel_shim.job_backlog(before=before, after=after)


def recovery_point(at: float) -> None:
    """Say of when the data is that the job at work proved to be restorable, in seconds since 1970."""
    if INSTALLED:
        otel_shim.recovery_point(at)


def watch_queue(
    name: str, depths: Callable[[], Any], workers: Callable[[], tuple[int, int]] | None = None
) -> None:
    """Let operators see a queue: how much is in it and, here, how many workers are busy of how many."""
    if not INSTALLED:
        return

    def read() -> otel_shim.QueueReading:
        busy, number = workers() if workers else (None, None)
        return otel_shim.QueueReading(**asdict(depths()), busy=busy, workers=number)

    otel_shim.queue(name, read)


def this_request() -> str | None:
    """What the request at work is called, to be kept with what it leaves for later; None without a trace."""
    carrier: dict[str, str] = {}
    if INSTALLED:
        TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def refer_to(request: str | None) -> None:
    """Link the work at hand to the request that caused it."""
    if INSTALLED and request:
        context = TraceContextTextMapPropagator().extract({"traceparent": request})
        trace.get_current_span().add_link(trace.get_current_span(context).get_span_context())


def item_added(queue: str) -> None:
    """Count an item that was put into a queue."""
    if INSTALLED:
        otel_shim.enqueued(queue)


def item_taken(queue: str, waited_seconds: float) -> None:
    """Count an item that a worker took, and how long it had waited."""
    if INSTALLED:
        otel_shim.taken(queue, waited_seconds)


def item_finished(queue: str) -> None:
    """Count an item that a worker is done with."""
    if INSTALLED:
        otel_shim.finished(queue)


def _unchanged(function: AnyFunction) -> AnyFunction:
    return function
