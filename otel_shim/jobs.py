"""Runs of jobs: each a trace of its own, with a link to what triggered it, and nobody's identity but its own.

    @otel_shim.job, an operation under nothing ─▶ start_run ─▶ span, heartbeat, Recorder
    adapters (APScheduler, Celery, RQ)         ─▶ running   ─▶ the same
    job_items, job_backlog, recovery_point     ─▶ the run at work in this context
    end_run ─▶ outcome ─▶ span, heartbeat, Recorder

What adapters use is this, and none of it raises into the application:

    with jobs.running(Run("invoice.send", system="celery", kind=SpanKind.CONSUMER, attempt=2,
                          scheduled_time=due, link=producer, run_id=task_id)) as work:
        ...                                  an exception passes unchanged and makes the run a failure
    work = jobs.start_run(Run(...))          the same in two steps, where a block cannot be had;
    token = attach(work.inside)              the context to run in holds the run and nothing of before
    jobs.end_run(work, error, outcome=None)  outcome only where the error does not tell it
    jobs.unstarted(Run(...), "missed")       a run that was due and not started
    jobs.took_place(Run(...), Course(...))   a run that is over, in a process that could not tell of it
    work = jobs.began_elsewhere(Run(...), at, span); jobs.ended_elsewhere(work, Course(...))
                                             a run in another process that tells of it while it goes on
    jobs.declare(Declaration(...), source)   what a scheduler knows of a job; see ``heartbeats``
    jobs.name_of(function)                   the operation of a function: as decorated, or module.name
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Protocol, cast

from opentelemetry import trace
from opentelemetry.context import Context, attach, create_key, get_value, set_value
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    set_span_in_context,
)

from otel_shim import _sdk_compat, context, counters, request_ids, sources
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim._sdk_compat import light_spans
from otel_shim.heartbeats import FUNCTION, Declaration, heartbeats
from otel_shim.model import Identity, Scalar

_WORK = create_key("otel-shim-job")
_tracer = trace.get_tracer("otel_shim")
UNNAMED = "unnamed.job"
_NOTHING = Context()
_MOST_ITEMS = 1 << 62
_CLEAN = (str, bool, int, float)
ITEM_KEYS = {
    semconv.SAAS_JOB_ITEM_STATE_READ: semconv.SAAS_JOB_ITEMS_READ,
    semconv.SAAS_JOB_ITEM_STATE_WRITTEN: semconv.SAAS_JOB_ITEMS_WRITTEN,
    semconv.SAAS_JOB_ITEM_STATE_REJECTED: semconv.SAAS_JOB_ITEMS_REJECTED,
    semconv.SAAS_JOB_ITEM_STATE_FILTERED: semconv.SAAS_JOB_ITEMS_FILTERED,
}
"""State of an item to the attribute of a run that counts it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt of one run of a job, as known when it starts.

    ``name`` is the operation. ``system`` and ``trigger`` are values of ``saas.job.system`` and
    ``saas.job.trigger``. ``scheduled_time`` is when it was due (naive times are UTC); ``attempt`` counts
    from 1; ``run_id`` is shared by the attempts, and made where there is none. A name or id that cannot be
    exported is counted, and another takes its place.

    ``link`` is the span of what triggered the run: the run is a trace of its own that refers to it.
    ``parent``, instead of it, makes the run a part of the trigger's trace. ``scope`` is an identity block
    that holds for the run; adapters leave it out, because whose a run is never comes from its trigger.
    ``attributes`` are set on the run's span as they are. ``kind`` is CONSUMER for messages of a queue.

    ``described`` is False for an operation under nothing: a job by its metrics, of which nobody said
    more, so its span carries no ``saas.job`` attributes and no actor.
    """

    name: str
    system: str = semconv.SAAS_JOB_SYSTEM_FUNCTION
    trigger: str | None = None
    scheduled_time: datetime | None = None
    attempt: int = 1
    run_id: str | None = None
    link: SpanContext | None = None
    parent: SpanContext | None = None
    kind: SpanKind = SpanKind.INTERNAL
    scope: context.Scope | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    described: bool = True


class Work:
    """A run at work: its span, the context to run in, and what it counted so far."""

    __slots__ = (
        "adopted",
        "backlog",
        "began",
        "declaration",
        "due",
        "ended",
        "inside",
        "items",
        "overlaps",
        "recovery_point",
        "run",
        "span",
        "start_delay",
        "started_at",
    )

    def __init__(self, run: Run, started_at: float) -> None:
        self.run = run = _usable(run)
        self.span: Span = trace.INVALID_SPAN
        self.inside = _NOTHING
        self.started_at = started_at
        self.began = time.perf_counter()
        self.declaration = heartbeats.declared(run.name)
        self.due = _due(run.scheduled_time) if run.scheduled_time is not None else None
        self.start_delay = max(0.0, started_at - self.due[0]) if self.due is not None else None
        self.items: dict[str, int] = {}
        self.backlog: int | None = None
        self.recovery_point: float | None = None
        self.overlaps = False
        self.adopted = False
        """Whether the decorated function that an adapter's run is of has begun in it."""
        self.ended = False

    @property
    def at(self) -> Context:
        """A context in which the run's own span is the current one, and nothing else."""
        return set_span_in_context(self.span, _NOTHING)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; ``seconds`` is how long it took."""

    work: Work
    outcome: str
    seconds: float
    overrun: bool
    error_type: str | None


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went that is over: times in seconds, ``started_at`` since 1970."""

    started_at: float
    seconds: float
    outcome: str
    error_type: str | None = None
    items: Mapping[str, int] = field(default_factory=dict)
    backlog: int | None = None
    recovery_point: float | None = None


class Recorder(Protocol):
    """What is told of each run; metrics, once the distro is wired."""

    def started(self, work: Work) -> None:
        """A run started."""

    def ended(self, ended: Ended) -> None:
        """A run ended."""

    def unstarted(self, name: str, outcome: str, count: int) -> None:
        """Runs that were due and not started."""


_recorder: Recorder | None = None


def use_recorder(recorder: Recorder | None) -> Recorder | None:
    """Set what is told of each run, and return what was; called once, when the distro is wired."""
    global _recorder
    before, _recorder = _recorder, recorder
    return before


# --- a run ---------------------------------------------------------------------------------------------


class running:  # noqa: N801 - reads as a block
    """A block that is a run of a job; its value is the ``Work``, None where that could not be started."""

    __slots__ = ("_run", "_token", "_work")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._work: Work | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> Work | None:
        self._work = start_run(self._run)
        self._token = attach(self._work.inside) if self._work is not None else None
        return self._work

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            context.leave(self._token)
        end_run(self._work, error)


@guarded(default=None)
def start_run(run: Run) -> Work | None:
    """Start the span of a run, and note the start; ``work.inside`` is the context to run in."""
    return _begin(run, _above(run))


@guarded(default=None)
def start_part(run: Run, base: Context) -> Work | None:
    """Start a run that stays a part of what is above it in a context: work after a request's answer."""
    return _begin(run, base)


@guarded(default=None)
def took_place(run: Run, course: Course, span: SpanContext | None = None) -> None:
    """Record a run that is over, with the times that it really had.

    ``span`` is that of a run whose own process has traced it: its metrics are recorded here, and refer to it.
    """
    work = Work(run, course.started_at)
    if span is None:
        work.span = _official_span(work, _described(work), _above(run))
    else:
        work.span = NonRecordingSpan(span)
    _note_start(work)
    _conclude(_went(work, course))


@guarded(default=None)
def began_elsewhere(run: Run, started_at: float, span: SpanContext) -> Work:
    """Note the start of a run in another process, which traces it and has told of it here."""
    work = Work(run, started_at)
    work.span = NonRecordingSpan(span)
    _note_start(work)
    return work


@guarded(default=None)
def ended_elsewhere(work: Work, course: Course) -> None:
    """Note how a run went that began elsewhere."""
    _conclude(_went(work, course))


@guarded(default=None)
def lost_elsewhere(work: Work, course: Course) -> None:
    """Note the end of a run that began elsewhere, in a process that died: its span is made here."""
    _trace_lost(work)
    _conclude(_went(work, course))


@guarded(default=None)
def _trace_lost(work: Work) -> None:
    """Make a span for it; where that fails, it has ended all the same."""
    work.span = _official_span(work, _described(work), _above(work.run))
    if work.run.described:
        _identify(work)


def _went(work: Work, course: Course) -> Ended:
    work.items, work.backlog, work.ended = dict(course.items), course.backlog, True
    work.recovery_point = course.recovery_point
    limit = work.declaration.max_runtime if work.declaration is not None else None
    overrun = limit is not None and course.seconds > limit
    return Ended(work, course.outcome, course.seconds, overrun, course.error_type)


def _begin(run: Run, base: Context) -> Work:
    work = Work(run, time.time())
    work.span = _start_span(work, base)
    inside = set_value(_WORK, work, set_span_in_context(work.span, base))
    work.inside = context.with_operation(work.run.name, inside)
    _note_start(work)
    return work


def _start_span(work: Work, base: Context) -> Span:
    """Start the span of a run; only an adapter's attributes may need the SDK's cleaning."""
    run, attributes = work.run, _described(work)
    if run.attributes:
        if not all(type(value) in _CLEAN for value in run.attributes.values()):
            return _official_span(work, attributes, base)
        attributes = {**run.attributes, **attributes}
    links = _links(run) or ()
    return light_spans.start_span(_tracer, run.name, run.kind, attributes, base, links=links)


def _official_span(work: Work, described: Mapping[str, Scalar], base: Context) -> Span:
    """Start the span of a run the SDK's own way, at the time that the run has."""
    run, at = work.run, int(work.started_at * 1e9)
    attributes = {**run.attributes, **described}
    return _tracer.start_span(run.name, base, run.kind, attributes, _links(run), start_time=at)


def _links(run: Run) -> list[Link] | None:
    return [Link(run.link)] if run.link is not None and run.link.is_valid else None


def _note_start(work: Work) -> None:
    """Tell identity, heartbeat and metrics that a run has started."""
    if work.run.described:
        _identify(work)
    work.overlaps = heartbeats.started(work.run.name, work.started_at)
    if _recorder is not None:
        _recorder.started(work)


def _above(run: Run) -> Context:
    """The context that a run starts in: empty, but for a parent or an identity that were asked for."""
    base = _NOTHING
    if run.parent is not None and run.parent.is_valid:
        base = set_span_in_context(NonRecordingSpan(run.parent), base)
    return base if run.scope is None else context.with_scope(run.scope, base)


def _usable(run: Run) -> Run:
    """A run whose name and id can be exported; brokers hand on whatever somebody put into them."""
    known = run.run_id is None or _plain(run.run_id)
    if known and _plain(run.name):
        return run
    counters.add("job_run_rejected")
    return replace(
        run,
        name=sources.canonical(run.name) or UNNAMED,
        run_id=sources.canonical(run.run_id),
    )


def _plain(text: Any) -> bool:
    return type(text) is str and 0 < len(text) <= sources.MAX_VALUE and text.isprintable()


@guarded(default=None)
def _due(time_: datetime) -> tuple[float, str] | None:
    """When a run was due: seconds since 1970, and RFC 3339. A time without a zone is in UTC."""
    aware = time_ if time_.tzinfo is not None else time_.replace(tzinfo=timezone.utc)
    text = aware.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return aware.timestamp(), text


def _described(work: Work) -> dict[str, Scalar]:
    """What the span of a run says when it starts."""
    run, declared = work.run, work.declaration
    if not run.described:
        return {semconv.SAAS_OPERATION: run.name}
    found: dict[str, Scalar] = {
        semconv.SAAS_OPERATION: run.name,
        semconv.SAAS_JOB_RUN_ID: run.run_id or request_ids.new(),
        semconv.SAAS_JOB_ATTEMPT: run.attempt,
        semconv.SAAS_JOB_SYSTEM: run.system,
    }
    if run.trigger is not None:
        found[semconv.SAAS_JOB_TRIGGER] = run.trigger
    if work.due is not None and work.start_delay is not None:
        found[semconv.SAAS_JOB_SCHEDULED_TIME] = work.due[1]
        found[semconv.SAAS_JOB_START_DELAY] = work.start_delay
    if declared is not None:
        found[semconv.SAAS_JOB_CRITICAL] = declared.critical
        if declared.schedule is not None:
            found[semconv.SAAS_JOB_SCHEDULE] = declared.schedule
    return found


def _identify(work: Work) -> None:
    """Make the job the actor of its run, and put its GDPR references on all below."""
    place = context.place_of(work.span)
    if place is not None:
        references = work.declaration.references if work.declaration is not None else {}
        place.root.operation = work.run.name
        place.root.is_job(cast("SDKSpan", work.span), job_identity(work.run.name, references))


@guarded(default=None)
def end_run(
    work: Work | None, error: BaseException | None = None, outcome: str | None = None
) -> Ended | None:
    """End a run, once; ``outcome`` is for who knows better than the error tells."""
    if work is None or work.ended:
        return None
    work.ended = True
    if isinstance(error, GeneratorExit):  # its reader stopped: not wrong, and not all of it
        outcome = outcome or semconv.SAAS_JOB_OUTCOME_PARTIAL
    ended = _ended(work, _failure(error), outcome)
    _conclude(ended)
    work.inside = (
        _NOTHING  # it holds the run: without this both would wait for the garbage collector
    )
    return ended


def _conclude(ended: Ended) -> None:
    """Tell span, heartbeat and metrics how a run ended."""
    work = ended.work
    _close(ended, int((work.started_at + ended.seconds) * 1e9))
    heartbeats.ended(
        work.run.name,
        work.started_at,
        ended.seconds,
        success=ended.outcome == semconv.SAAS_JOB_OUTCOME_SUCCESS,
        backlog=work.backlog,
        recovery_point=work.recovery_point,
    )
    if _recorder is not None:
        _recorder.ended(ended)


def _failure(error: BaseException | None) -> BaseException | None:
    """The error, unless it is only a way to end."""
    if isinstance(error, SystemExit):
        return error if error.code else None
    return None if isinstance(error, GeneratorExit) else error


def _ended(work: Work, error: BaseException | None, outcome: str | None) -> Ended:
    seconds = time.perf_counter() - work.began
    limit = work.declaration.max_runtime if work.declaration is not None else None
    overrun = limit is not None and seconds > limit
    kind = type(error).__qualname__ if error is not None else None
    return Ended(work, outcome or _outcome(work, error, overrun), seconds, overrun, kind)


def _outcome(work: Work, error: BaseException | None, overrun: bool) -> str:
    """A timeout is one of the job's own only where it took longer than it may."""
    if error is not None:
        timed_out = overrun and isinstance(error, _TIMEOUTS)
        return semconv.SAAS_JOB_OUTCOME_TIMEOUT if timed_out else semconv.SAAS_JOB_OUTCOME_FAILURE
    if work.items.get(semconv.SAAS_JOB_ITEM_STATE_REJECTED):
        return semconv.SAAS_JOB_OUTCOME_PARTIAL
    return semconv.SAAS_JOB_OUTCOME_SUCCESS


def _close(ended: Ended, at: int) -> None:
    span, work = ended.work.span, ended.work
    found: dict[str, Scalar] = {ITEM_KEYS[state]: count for state, count in work.items.items()}
    if work.run.described:
        found[semconv.SAAS_JOB_OUTCOME] = ended.outcome
    if ended.overrun:
        found[semconv.SAAS_JOB_OVERRUN] = True
    if ended.error_type is not None:
        found[ERROR_TYPE] = ended.error_type
    if found:
        _sdk_compat.stamp_any(span, found)
    if ended.error_type is not None or ended.outcome in _BAD:
        span.set_status(Status(StatusCode.ERROR))
    span.end(at)


_BAD = (semconv.SAAS_JOB_OUTCOME_FAILURE, semconv.SAAS_JOB_OUTCOME_TIMEOUT)


def _timeouts() -> tuple[type[BaseException], ...]:
    """What ends work by its time; before Python 3.11 asyncio's is not the builtin one."""
    import asyncio  # noqa: PLC0415
    import concurrent.futures  # noqa: PLC0415

    kinds = (asyncio.TimeoutError, asyncio.CancelledError, concurrent.futures.TimeoutError)
    return (TimeoutError, *kinds)


_TIMEOUTS = _timeouts()


@guarded(default=None)
def unstarted(run: Run, outcome: str, count: int = 1) -> None:
    """Note runs that were due and not started: a span of no length, which says which and why."""
    work = Work(run, time.time())
    described = {**_described(work), semconv.SAAS_JOB_OUTCOME: outcome}
    work.span = _official_span(work, described, _NOTHING)
    _identify(work)
    work.span.end(int(work.started_at * 1e9))
    if _recorder is not None:
        _recorder.unstarted(work.run.name, outcome, count)


# --- the run at work -----------------------------------------------------------------------------------


def at_work(at: Context | None = None) -> Work | None:
    """The run that a point of the program belongs to, while it goes on."""
    work = get_value(_WORK, at)
    return work if isinstance(work, Work) and not work.ended else None


def adopted(name: str) -> bool:
    """Whether a decorated function begins inside of an adapter's run of itself, which is then its run."""
    work = at_work()
    if work is None or work.adopted or work.run.name != name:
        return False
    work.adopted = work.run.system != semconv.SAAS_JOB_SYSTEM_FUNCTION
    return work.adopted


@guarded(default=None)
def add_items(counts: Mapping[str, Any]) -> None:
    """Add items of a run, by their state; see ``otel_shim.job_items``."""
    work = at_work()
    if work is None:
        counters.add("job_report_without_run")
        return
    for state, count in counts.items():
        if count is None:
            continue
        if type(count) is not int or not 0 <= count < _MOST_ITEMS:
            counters.add("job_report_rejected")
            continue
        work.items[state] = min(work.items.get(state, 0) + count, _MOST_ITEMS)


@guarded(default=None)
def report_backlog(before: Any, after: Any) -> None:
    """Say what waits for the job; see ``otel_shim.job_backlog``."""
    work = at_work()
    if work is None:
        counters.add("job_report_without_run")
        return
    for value, key in (
        (before, semconv.SAAS_JOB_BACKLOG_BEFORE),
        (after, semconv.SAAS_JOB_BACKLOG_AFTER),
    ):
        if value is None:
            continue
        if type(value) is not int or not 0 <= value < _MOST_ITEMS:
            counters.add("job_report_rejected")
            continue
        work.span.set_attribute(key, value)
        if key == semconv.SAAS_JOB_BACKLOG_AFTER:
            work.backlog = value


_AHEAD = 300.0
"""Seconds that the clock of whoever wrote the data may be ahead of ours."""


@guarded(default=None)
def report_recovery_point(at: Any) -> None:
    """Say of when the data is that the run at work proves; see ``otel_shim.recovery_point``."""
    work = at_work()
    if work is None:
        counters.add("job_report_without_run")
        return
    seconds = _moment(at)
    if seconds is None or not 0 < seconds <= time.time() + _AHEAD:
        counters.add("job_report_rejected")
        return
    work.recovery_point = min(seconds, work.recovery_point or seconds)
    told = datetime.fromtimestamp(work.recovery_point, timezone.utc).isoformat()
    work.span.set_attribute(semconv.SAAS_JOB_RECOVERY_POINT, told.replace("+00:00", "Z"))


def _moment(at: Any) -> float | None:
    """Seconds since 1970 of a time given as such, or as a datetime; a naive one is in UTC."""
    if isinstance(at, datetime):
        due = _due(at)
        return due[0] if due is not None else None
    return float(at) if type(at) in (int, float) else None


# --- what is declared ----------------------------------------------------------------------------------

_DECLARED_AS = "__otel_shim_job__"


@guarded(default=None)
def declare(declaration: Declaration, source: str = FUNCTION) -> None:
    """Note what is known of a job before it runs: by the decorator, or by a scheduler."""
    heartbeats.declare(declaration, source)


def mark(function: Any, name: str) -> None:
    """Say on a function which job it is."""
    setattr(function, _DECLARED_AS, name)


@guarded(default=UNNAMED)
def name_of(function: Callable[..., Any]) -> str:
    """The operation of a function that a scheduler runs: as decorated, else ``module.name``."""
    if (declared := declared_name(function)) is not None:
        return declared
    inner = _inner(function)
    qualified = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    module = getattr(inner, "__module__", None) or type(inner).__module__
    module = "__main__" if module == "__mp_main__" else module  # a spawned child's name for it
    text = sources.canonical(f"{module}.{qualified.replace('<locals>.', '')}"[: sources.MAX_VALUE])
    return text or UNNAMED


def declared_name(function: Any) -> str | None:
    """The operation of a function that is decorated with ``otel_shim.job``."""
    declared = getattr(_inner(function), _DECLARED_AS, None)
    return declared if isinstance(declared, str) else None


def _inner(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def seconds_of(value: Any) -> float | None:
    """A time in seconds, given as a number or a ``timedelta``; ValueError for what is none."""
    if value is None:
        return None
    total = value.total_seconds() if hasattr(value, "total_seconds") else value
    if isinstance(total, bool) or not isinstance(total, (int, float)):
        raise ValueError("write seconds or a timedelta")
    if not (math.isfinite(total) and total > 0):
        raise ValueError("write a positive number of seconds")
    return float(total)


def job_identity(name: str, references: Mapping[str, Scalar]) -> Identity:
    """Who a job is: an actor that is no person, whose pseudonym needs an organisation."""
    return _job_identity(name, tuple(references.items()))


@functools.lru_cache(maxsize=1024)
def _job_identity(name: str, references: tuple[tuple[str, Scalar], ...]) -> Identity:
    return Identity(user_id=name, actor_type=semconv.SAAS_ACTOR_TYPE_JOB, extra=dict(references))
