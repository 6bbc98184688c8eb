"""The event dictionaries of structlog, as they lie in records of ``logging``.

``ProcessorFormatter.wrap_for_formatter`` makes the dictionary the record's message, and marks the record.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_STACKTRACE

Event = Mapping[str, Any]
Raised = tuple[type[BaseException], BaseException, TracebackType | None]
_EVENT = "event"
_ERROR = "exc_info"
_FORMATTED = "exception"
_STACKS = ("stack", "stack_info")
_SAID_BY_THE_RECORD = frozenset(
    (_EVENT, _ERROR, _FORMATTED, *_STACKS, "level", "level_number", "logger", "timestamp")
)
"""What structlog's own processors put into an event, and a record says anyway."""


def of(record: logging.LogRecord) -> Event | None:
    """The event of a record; None where it is not structlog's."""
    event: Any = record.msg
    return event if type(event) is dict and hasattr(record, "_logger") else None


def text(event: Event) -> str:
    """What an event says."""
    return str(event.get(_EVENT, ""))


def fields(event: Event) -> dict[str, Any]:
    """The fields that the application gave."""
    return {k: v for k, v in event.items() if k not in _SAID_BY_THE_RECORD and k[:1] != "_"}


def stack(event: Event) -> str | None:
    """The stack where it was logged, if that was asked for."""
    found = (event.get(name) for name in _STACKS)
    return next((each for each in found if isinstance(each, str)), None)


def raised(event: Event) -> Raised | None:
    """The exception that an event is about.

    It says so by ``exc_info``; once a processor made text of that, the exception is looked for where it
    is handled at the moment.
    """
    told = event.get(_ERROR)
    if isinstance(told, BaseException):
        return type(told), told, told.__traceback__
    if isinstance(told, tuple) and len(told) == 3 and told[0] is not None:
        return told
    kind, error, at = sys.exc_info()
    if kind is None or error is None or not (told or _is_of(event.get(_FORMATTED), error)):
        return None
    return kind, error, at


def _is_of(formatted: object, error: BaseException) -> bool:
    """Whether a formatted traceback, or what a processor made in its place, is that of an exception."""
    if not isinstance(formatted, str):
        return bool(formatted)
    return formatted.rstrip().endswith(
        "".join(traceback.format_exception_only(type(error), error)).rstrip()
    )


def formatted_exception(event: Event) -> dict[str, Any]:
    """What a processor made of an exception that is not to be had any more."""
    formatted = event.get(_FORMATTED)
    return {} if formatted is None else {_named(formatted): formatted}


def _named(formatted: object) -> str:
    return EXCEPTION_STACKTRACE if isinstance(formatted, str) else _FORMATTED
