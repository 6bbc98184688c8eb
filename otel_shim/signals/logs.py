"""Identity on log records: over OTLP, and as JSON where the application's own handlers write.

    logging ─▶ Logger.callHandlers ─┐
    structlog, loguru ─▶ capture/ ──┴▶ Intake ─▶ what holds is noted on the record ─▶ OTLP

No handler is ever added to a logger. Records are taken where every logger hands them on
(``Logger.callHandlers``), so that loggers which do not propagate (``uvicorn.error``) count too and
``logging.basicConfig`` finds the root as it would without us.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, TextIO

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.semconv.attributes.code_attributes import CODE_STACKTRACE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import get_current_span

from otel_shim import _sdk_compat, context
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.signals import event_dicts
from otel_shim.values import exportable, written

_IDENTITY = "otel_shim_identity"
_ERROR_CODE = "error_code"
_OWN_LOGGERS = ("opentelemetry.", "otel_shim")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_INJECTED = frozenset(
    {_IDENTITY, "otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName"}
)
_HIDDEN = _STANDARD | _INJECTED | {_ERROR_CODE, "color_message"}
_HIDDEN_IN_EVENTS = _INJECTED | {_ERROR_CODE, "color_message", "message", "asctime"}
_HIDDEN_IN_FIELDS = _INJECTED | {_ERROR_CODE}
FIELDS = "otel_shim_fields"
"""The name under which a record made of another library's has the fields that the application gave.

There they cannot be taken for what every record has, as ``module``, ``process`` or ``args``."""
INJECTED = _INJECTED
"""The names of what is noted on a record."""


class IdentityLogRecordProcessor(LogRecordProcessor):
    """Stamps log records with the identity that holds where they are emitted."""

    @guarded(default=None)
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Add identity; what the record says itself wins."""
        record = log_record.log_record
        if type(record) is _sdk_compat.BridgedRecord:
            return
        found = dict(context.correlation(record.context))
        code = (record.attributes or {}).get(_ERROR_CODE)
        if code is not None:
            found[semconv.SAAS_ERROR_CODE] = written(code)
        if found:
            record.attributes = {**found, **(record.attributes or {})}

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held."""
        return True


class Sinking:
    """A record of another library of logging, from when its sinks are to write it.

    Whoever takes it first sends it: ``logging``, where a sink hands it on while it writes, else that
    library's capture. What is handed on later, by a task or another thread, was sent by then.
    """

    def __init__(self, text: str, sinks: int, taken: bool = False) -> None:
        self.text = text
        """What it says; empty where it is taken from ``logging`` alone, however often."""
        self._left = sinks
        self._taken = taken
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether nobody has taken it before."""
        with self._lock:
            first, self._taken = not self._taken, True
            return first

    def is_again(self, record: logging.LogRecord) -> bool:
        """Whether this is the same record, handed on after it was taken; so often at most as it has sinks.

        A task that a sink starts goes on in this context, and says much that is none of this.
        """
        if not self.text or self.text not in text_of(record):
            return False
        taken_before = not self.take()
        with self._lock:
            self._left -= 1
            return taken_before and self._left >= 0


_sinking: ContextVar[Sinking | None] = ContextVar("otel_shim_sinking", default=None)
"""What is being written by sinks here; a context, because a sink may hand it on in a task."""


class Intake:
    """Takes each record once, whichever library it comes from: correlates it and sends it over OTLP."""

    def __init__(self, service_name: str) -> None:
        self._otlp = _sdk_compat.LogBridge(text_of, _attributes)
        self._service_name = service_name

    def take(self, record: logging.LogRecord) -> None:
        """Note on a record what holds, and send it."""
        about_an_error = record.exc_info or type(record.msg) is dict
        token = _where_it_broke(record) if about_an_error else None
        try:  # a time limit of a queue may end any of it
            _correlate(record, self._service_name)
            if not record.name.startswith(_OWN_LOGGERS) and not _was_sent(record):
                _send(self._otlp, record)
        finally:
            if token is not None:
                detach(token)

    def correlate(self, record: logging.LogRecord) -> None:
        """Note on a record what holds."""
        _correlate(record, self._service_name)


@contextmanager
def sinking(record: Sinking) -> Iterator[None]:
    """A block in which the sinks of another library write a record, each of them once."""
    token = _sinking.set(record)
    try:
        yield
    finally:
        _sinking.reset(token)


def is_sinking() -> bool:
    """Whether sinks of another library write a record here."""
    return _sinking.get() is not None


@guarded(default=False)
def _was_sent(record: logging.LogRecord) -> bool:
    """Whether a record is one of another library's, which a sink hands on though it was sent."""
    sunk = _sinking.get()
    return sunk is not None and sunk.is_again(record)


def take_records(log_format: str, service_name: str) -> Intake:
    """Correlate every record from now on, send it over OTLP, and write JSON unless ``log_format`` is text."""
    intake = Intake(service_name)
    _take_from_loggers(intake)
    if log_format == "json":
        _format_as_json()
    return intake


def _take_from_loggers(intake: Intake) -> None:
    hand_on = logging.Logger.callHandlers

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not hasattr(
            record, _IDENTITY
        ):  # else handed to a logger again, by the listener of a queue
            intake.take(record)
        return hand_on(logger, record)

    logging.Logger.callHandlers = call_handlers  # type: ignore[assignment,method-assign]


@guarded(default=None)
def _where_it_broke(record: logging.LogRecord) -> Token[Context] | None:
    """Go back to the request that an error left, where it is logged outside of it (by the server)."""
    raised = _raised(record, event_dicts.of(record))
    if raised is None or get_current_span().get_span_context().is_valid:
        return None
    at = context.remembered(raised[1])
    return attach(at) if at is not None else None


@guarded(default=None)
def _send(otlp: logging.Handler, record: logging.LogRecord) -> None:
    otlp.emit(record)  # without its lock, which would let one thread log at a time


@guarded(default=None)
def _correlate(record: logging.LogRecord, service_name: str) -> None:
    """Note on the record what holds in this thread, for formatters that run later or elsewhere.

    The ``otel*`` names are those of OpenTelemetry's logging instrumentation.
    """
    fields = vars(record)
    fields[_IDENTITY] = found = dict(context.correlation())
    span_context = get_current_span().get_span_context()
    valid = span_context.is_valid
    fields["otelTraceID"] = f"{span_context.trace_id:032x}" if valid else "0"
    fields["otelSpanID"] = f"{span_context.span_id:016x}" if valid else "0"
    fields["otelTraceSampled"] = span_context.trace_flags.sampled
    fields["otelServiceName"] = service_name
    if (
        code := _error_code(record, event_dicts.of(record))
    ) is not None:  # a queue's handler takes the exception off
        found[semconv.SAAS_ERROR_CODE] = code


_write_json = json.JSONEncoder(ensure_ascii=False).encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line; keys are the attribute names of the contract and of OpenTelemetry."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; values that JSON cannot hold are written as their ``str``."""
        return _write_json(exportable(_fields(record)))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "timestamp": _timestamp(record.created),
        "severity": record.levelname,
        "logger": record.name,
        "message": text_of(record),
    }
    return fields | correlated(record) | _own(record)


def correlated(record: logging.LogRecord) -> dict[str, Any]:
    """What was noted on a record: its trace, and who is behind it; empty outside of both."""
    fields: dict[str, Any] = {}
    if getattr(record, "otelTraceID", "0") != "0":
        fields = {"trace_id": record.otelTraceID, "span_id": record.otelSpanID}  # type: ignore[attr-defined]
    return fields | getattr(record, _IDENTITY, {})


def text_of(record: logging.LogRecord) -> str:
    """What a record says, without its fields."""
    event = event_dicts.of(record)
    return record.getMessage() if event is None else event_dicts.text(event)


def _attributes(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says, for OTLP; what it says itself wins."""
    found: dict[str, Any] = {**vars(record).get(_IDENTITY, {}), **exportable(_own(record))}
    return found


def _timestamp(created: float) -> str:
    return f"{_second(int(created // 1))}.{int(created % 1 * 1e6):06d}Z"


@functools.lru_cache(maxsize=16)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _own(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that the application gave, and what is known of its error."""
    event = event_dicts.of(record)
    said, hidden = _given(record, event)
    found = {key: value for key, value in said.items() if key not in hidden}
    if stack := record.stack_info or (event and event_dicts.stack(event)):
        found[CODE_STACKTRACE] = stack
    if (raised := _raised(record, event)) is not None:
        found[EXCEPTION_TYPE] = raised[0].__name__
        found[EXCEPTION_MESSAGE] = raised[1]
        found[EXCEPTION_STACKTRACE] = "".join(traceback.format_exception(*raised))
    elif event is not None:
        found |= event_dicts.formatted_exception(event)
    if (code := _error_code(record, event)) is not None:
        found[semconv.SAAS_ERROR_CODE] = code
    return found


def _given(
    record: logging.LogRecord, event: event_dicts.Event | None
) -> tuple[dict[str, Any], frozenset[str]]:
    """Where the fields are that the application gave, and which names there are none of them."""
    if event is not None:
        return event_dicts.fields(event), _HIDDEN_IN_EVENTS
    own = vars(record)
    return (own[FIELDS], _HIDDEN_IN_FIELDS) if FIELDS in own else (own, _HIDDEN)


def _raised(
    record: logging.LogRecord, event: event_dicts.Event | None
) -> event_dicts.Raised | None:
    """The exception that a record is about."""
    if record.exc_info and record.exc_info[0] is not None:
        return record.exc_info
    return None if event is None else event_dicts.raised(event)


def _error_code(record: logging.LogRecord, event: event_dicts.Event | None) -> str | None:
    """The application's own code, else the class of the exception."""
    code = getattr(record, _ERROR_CODE, None) if event is None else event.get(_ERROR_CODE)
    if code is None and (raised := _raised(record, event)) is not None:
        code = raised[0].__name__
    return None if code is None else written(code)


def _format_as_json() -> None:
    """Let console handlers with a plain formatter write JSON, whenever and by whomever they are made."""
    plain = logging.Handler.format
    formatter = JsonFormatter()

    def format_record(handler: logging.Handler, record: logging.LogRecord) -> str:
        return formatter.format(record) if _on_console(handler) else plain(handler, record)

    logging.Handler.format = format_record  # type: ignore[assignment,method-assign]
    logging.lastResort = _LastResort()


def _on_console(handler: logging.Handler) -> bool:
    """Whether a handler writes to the console in a format that nobody chose with care.

    uvicorn's own formatters are its defaults; any other class is the application's choice.
    """
    if getattr(handler, "stream", None) not in (
        sys.stdout,
        sys.stderr,
        sys.__stdout__,
        sys.__stderr__,
    ):
        return False
    kind = type(handler.formatter)
    return kind in (type(None), logging.Formatter) or kind.__module__ == "uvicorn.logging"


class _LastResort(logging.StreamHandler):  # type: ignore[type-arg]  # not generic before Python 3.11
    """What Python uses where no handler is configured: here JSON on stdout. Not a handler of any logger."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.NOTSET)

    @property
    def stream(self) -> TextIO:
        """The standard output of the moment."""
        return sys.stdout
