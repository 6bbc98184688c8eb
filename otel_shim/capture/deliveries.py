"""What the queues of Celery and RQ have in common: from the producer's span over the wait to the run.

    request ─▶ send <job> ─▶ wait <queue>          the trace of who asked for it
                   ▲               │
                   └──── links ────┴──▶ <job>      the run: a trace of its own (`link`, the default),
                                                    or a part of the trace above (`parent`, by choice)

A message carries the trace context, the time at which it was put in and the name of its queue; never
anybody's identity. Attributes follow OpenTelemetry's conventions for messaging.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
import uuid
from collections.abc import Mapping, MutableMapping
from contextvars import Token
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, create_key, get_value, set_value
from opentelemetry.metrics import MeterProvider
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otel_shim import _sdk_compat, config, context, jobs, queues
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim._sdk_compat import light_spans
from otel_shim.jobs import Run, Work
from otel_shim.model import Scalar
from otel_shim.signals import jobs as job_metrics
from otel_shim.signals import propagation
from otel_shim.signals import queues as queue_metrics

ENQUEUED_AT = "saas-enqueued-at"
"""Header of a message: when it was put into its queue, in seconds since 1970."""
QUEUE = "saas-queue"
"""Header of a message: the queue that it was put into."""
_SENDING = create_key("otel-shim-sending")
_TAKEN = create_key("otel-shim-taken")
_NOBODY = context.for_nobody(Context())
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, version 00."""
_relation: str | None = None
_tracer = trace.get_tracer("otel_shim")


def use_relation(relation: str) -> None:
    """Say how a run refers to its producer, ``link`` or ``parent``; called once, when the distro is wired."""
    global _relation
    _relation = relation


def relation() -> str:
    """How a run refers to its producer; from the environment where no distro has said it."""
    return _relation or _from_environment()


def record(meters: MeterProvider) -> None:
    """Record queues and jobs with the meters of a provider; what records them already goes on."""
    queue_metrics.install(meters)
    job_metrics.install(meters)


@functools.cache
def _from_environment() -> str:
    return config.from_environ(os.environ).queue_relation


# --- putting in ----------------------------------------------------------------------------------------


class Sending:
    """A message on its way into a queue, and its span."""

    def __init__(self, system: str, job: str, arrives: bool) -> None:
        self.queue: str | None = None
        self.open = True
        """Whether it is still on its way; its span may not be recorded, and all the same it is sent."""
        self.to_name = ""
        """The queue's own name, where that is no label."""
        self._arrives = arrives
        attributes = {
            MESSAGING_SYSTEM: system,
            MESSAGING_OPERATION_NAME: "send",
            MESSAGING_OPERATION_TYPE: "send",
        }
        self.span = light_spans.start_span(_tracer, f"send {job}", SpanKind.PRODUCER, attributes)
        self._token: Token[Context] | None = attach(
            set_value(_SENDING, self, trace.set_span_in_context(self.span))
        )

    @guarded(default=None)
    def to(self, queue: str, message_id: Any) -> None:
        """Say into which queue it goes."""
        self.to_name = queue
        self.queue = queues.label(queue)
        found: dict[str, Scalar] = {
            MESSAGING_DESTINATION_NAME: self.queue,
            semconv.SAAS_QUEUE_NAME: self.queue,
        }
        if (run_id := run_id_of(message_id)) is not None:
            found[semconv.SAAS_JOB_RUN_ID] = run_id
        _sdk_compat.stamp_any(self.span, found)

    @guarded(default=None)
    def end(self, error: BaseException | None = None) -> None:
        """It was sent, or could not be."""
        self.open = False
        if self._token is not None:
            context.leave(self._token)
            self._token = None
        if error is not None:
            self.span.set_attribute(ERROR_TYPE, type(error).__qualname__)
            self.span.set_status(Status(StatusCode.ERROR))
        elif self.queue is not None and self._arrives:
            queues.enqueued(self.queue)
        self.span.end()


@guarded(default=None)
def sending(system: str, job: str, arrives: bool = True) -> Sending | None:
    """Begin to send a message for a job; ``arrives`` where it is to be taken at once."""
    return Sending(system, job, arrives)


def at_hand() -> Sending | None:
    """The message that is being sent here."""
    found = get_value(_SENDING)
    return found if isinstance(found, Sending) and found.open else None


def mark(carrier: MutableMapping[str, Any], queue: str) -> None:
    """Write trace context, time and queue into a message, over those of an earlier attempt."""
    propagate.inject(carrier)
    carrier[ENQUEUED_AT] = time.time()
    carrier[QUEUE] = queue


def run_id_of(message_id: Any) -> str | None:
    """The id of a message where it is a UUID, else one made from it: an application's own may tell who."""
    if not isinstance(message_id, str) or not message_id:
        return None
    if _UUID.fullmatch(message_id):  # as both libraries write it
        return message_id
    try:
        return str(uuid.UUID(message_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, message_id[:1024]))


# --- taking out ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """A message that a worker takes: which job of which queue, and what the producer wrote into it.

    ``enqueued_at`` and ``due`` are in seconds since 1970: the message waits since the later of them.
    """

    system: str
    job: str
    queue: str
    message_id: str
    producer: SpanContext | None = None
    enqueued_at: float | None = None
    due: float | None = None
    attempt: int = 1
    trigger: str = semconv.SAAS_JOB_TRIGGER_MANUAL

    def since(self) -> float | None:
        """Since when it has been ready; None where nobody wrote it down."""
        if self.enqueued_at is None:
            return None
        return max(self.enqueued_at, self.due or 0.0)

    def run(self) -> Run:
        """The run of the job, and how it refers to the producer."""
        due = datetime.fromtimestamp(self.due, timezone.utc) if self.due is not None else None
        together = relation() == "parent"
        return Run(
            self.job,
            self.system,
            self.trigger,
            due,
            self.attempt,
            run_id_of(self.message_id),
            link=None if together else self.producer,
            parent=self.producer if together else None,
            kind=SpanKind.CONSUMER,
            attributes=_messaging(self),
        )


def _messaging(delivery: Delivery) -> dict[str, Scalar]:
    queue = queues.label(delivery.queue)
    return {
        MESSAGING_SYSTEM: delivery.system,
        MESSAGING_OPERATION_NAME: "process",
        MESSAGING_OPERATION_TYPE: "process",
        MESSAGING_DESTINATION_NAME: queue,
        semconv.SAAS_QUEUE_NAME: queue,
    }


@functools.lru_cache(4)
def _fields(textmap: TextMapPropagator) -> tuple[str, ...]:
    return tuple(sorted(textmap.fields))


def producer_of(carrier: Mapping[str, Any]) -> SpanContext | None:
    """The producer's span, as the message names it."""
    textmap = propagate.get_global_textmap()
    if _is_w3c(textmap) and (plain := _plain_parent(carrier)) is not None:
        return plain if plain.is_valid else None
    texts = {name: text for name in _fields(textmap) if isinstance(text := carrier.get(name), str)}
    found = trace.get_current_span(textmap.extract(texts, Context())).get_span_context()
    return found if found.is_valid else None


@functools.lru_cache(4)
def _is_w3c(textmap: TextMapPropagator) -> bool:
    return propagation.edge_of(textmap).is_w3c


def _plain_parent(carrier: Mapping[str, Any]) -> SpanContext | None:
    """What the propagator finds in a ``traceparent`` as every SDK writes it, with nothing beside it.

    Of the propagator's ways to read it, this takes a quarter of the time; what is unusual is left to it.
    """
    text = carrier.get("traceparent")
    found = _PARENT.fullmatch(text) if type(text) is str and not carrier.get("tracestate") else None
    if found is None:
        return None
    flags = TraceFlags(int(found[3], 16))
    return SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)


def moment(value: Any) -> float | None:
    """A time in seconds since 1970, from a number, a datetime or its ISO text; None for what is none."""
    if value is None:  # so are most due times; to try costs an exception
        return None
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
            value = aware.timestamp()
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds < 1 << 40 else None


class Taken:
    """A message that a worker works on: the run of its job, in a context of its own."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.work: Work | None = jobs.start_run(delivery.run())
        inside = self.work.inside if self.work is not None else Context()
        self._token: Token[Context] | None = attach(set_value(_TAKEN, self, inside))
        self._waited()

    @guarded(default=None)
    def _waited(self) -> None:
        """Record how long it waited, until the run began, and show it in the trace of who asked for it."""
        since = self.delivery.since()
        if since is None:
            return
        over = self.work.started_at if self.work is not None else time.time()
        queues.taken(self.delivery.queue, over - since)
        if self.delivery.producer is not None:
            _show_wait(self.delivery, self.delivery.producer, (min(since, over), over), self.work)

    @guarded(default=None)
    def end(self, error: BaseException | None = None, outcome: str | None = None) -> None:
        """The work is done, well or not."""
        self.leave()
        jobs.end_run(self.work, error, outcome)
        queues.finished(self.delivery.queue)

    def leave(self) -> None:
        """Go back to the context of before; where another process tells of the end, that is all."""
        if self._token is not None:
            context.leave(self._token)
            self._token = None


def _show_wait(
    delivery: Delivery, producer: SpanContext, wait: tuple[float, float], work: Work | None
) -> None:
    """A span as long as the wait, in the producer's trace, with a link to the run that ended it."""
    above = trace.set_span_in_context(trace.NonRecordingSpan(producer), _NOBODY)
    queue = queues.label(delivery.queue)
    attributes = {MESSAGING_SYSTEM: delivery.system, semconv.SAAS_QUEUE_NAME: queue}
    began = int(wait[0] * 1e9)
    links = [trace.Link(work.span.get_span_context())] if work is not None else []
    span = light_spans.start_span(
        _tracer,
        f"wait {queue}",
        SpanKind.INTERNAL,
        attributes,
        above,
        links=links,
        start_time=began,
    )
    span.end(int(wait[1] * 1e9))


@guarded(default=None)
def take(delivery: Delivery) -> Taken | None:
    """Begin to work on a message."""
    return Taken(delivery)


def taken_here(message_id: str) -> Taken | None:
    """The message of this id, if it is the one that is worked on here."""
    found = get_value(_TAKEN)
    mine = isinstance(found, Taken) and found.delivery.message_id == message_id
    return found if mine else None  # type: ignore[return-value]
