"""What is logged of calendars, without people's data.

caldav writes whole requests and answers at DEBUG (titles, attendees, places, logins), addresses at INFO,
and through the root logger an answer that is not XML. HTTP clients write the addresses of their
requests, httpx at INFO, and the address of a feed is its password. So what caldav logs below WARNING, or
anybody in the middle of a request to a calendar, is exported without its text; of warnings and errors
the first line is kept, without addresses. caldav's own name calendars and people, so of them goes the
template of the message where there is one, and what is quoted, a path or an e-mail address does not.
https://github.com/python-caldav/caldav/blob/v3.6.0/caldav/response.py
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from typing import Any

from opentelemetry import _logs
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
)

from otel_shim import _sdk_compat
from otel_shim._guard import guarded
from otel_shim.signals.calendar_requests import in_request

WITHHELD = "text withheld, it may hold people's data"
_LOGGERS = ("caldav", "caldav.")
_ROOT = "root"
_ANSWERS = ("Expected some valid XML from the server", "something bad happened")
"""How caldav's records on the root logger begin."""
_ADDRESS = re.compile(r"(\w+://)\S+|(?<![\w/])/\S+")
_REDACTED = "REDACTED"
_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_QUOTED = re.compile(rf"(?<!\w)[bru]{{0,2}}[{_QUOTES}](?:.*[{_QUOTES}](?!\w)|.*)")
"""From the first quotation mark to the last, for names have apostrophes; to the end where none closes."""
_PATHS = re.compile(r"(?:\b(\w+://)|(?<!\S)\S*/)(?:.*/)?\S*")
"""From the first word with a slash to the last, for paths have blanks."""
_EMAIL = re.compile(r"(?<!\S)\S*(?:@|%40)\S*")
_LONGEST = 200
_SEARCHED = 4000
"""Characters of a line that are looked at, each pass over them linear; a cut before it would open what is quoted."""
_formatted: ContextVar[tuple[str, str] | None] = ContextVar("otel-shim-caldav-text", default=None)
"""The last text that caldav formatted in this context, and its template."""


class CalendarLogProcessor(LogRecordProcessor):
    """Takes people's data out of log records of calendars, before any other processor sees them."""

    @guarded(default=None)
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Rewrite the body of a record of caldav's, or of a request; any other is left alone."""
        record, scope = log_record.log_record, log_record.instrumentation_scope
        logger = scope.name if scope is not None else ""
        caldavs = _is_caldavs(logger, record.body)
        if not (caldavs or in_request(record.context)):
            return
        severe = (record.severity_number or SeverityNumber.UNSPECIFIED).value
        if severe < SeverityNumber.WARN.value:
            record.body = WITHHELD
        else:
            record.body = _nameless(record.body) if caldavs else _first_line(record.body)
        if record.attributes:
            kept = {k: v for k, v in record.attributes.items() if k not in _TEXTS}
            record.attributes = kept

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held."""
        return True


_TEXTS = frozenset((EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE))


def _is_caldavs(logger: str, body: Any) -> bool:
    if logger == _LOGGERS[0] or logger.startswith(_LOGGERS[1]):
        return True
    return logger == _ROOT and isinstance(body, str) and body.startswith(_ANSWERS)


class _Templates(logging.Filter):
    """Lets every record pass, and notes the template of one that is formatted: a bridge hands on the text only."""

    @guarded(default=True)
    def filter(self, record: logging.LogRecord) -> bool:
        """Note it; always true."""
        if record.levelno >= logging.WARNING and record.args and isinstance(record.msg, str):
            _formatted.set((record.getMessage(), record.msg))
        return True


_templates = _Templates()


def _first_line(body: Any) -> str:
    return _ADDRESS.sub(_without_address, _start(body)[:_LONGEST])


def _nameless(body: Any) -> str:
    """The first line of caldav's own text, or of its template, without what may name a calendar or somebody."""
    text, template = _formatted.get() or (None, "")
    line = _QUOTED.sub(_REDACTED, _start(template if body == text else body))
    return _EMAIL.sub(_REDACTED, _PATHS.sub(_without_address, line))[:_LONGEST]


def _start(body: Any) -> str:
    return str(body).partition("\n")[0][:_SEARCHED]


def _without_address(found: re.Match[str]) -> str:
    return f"{found.group(1) or ''}{_REDACTED}"


@guarded(default=None)
def install(loggers: Any = None) -> None:
    """Put the processor before all others of a provider, by default the global one; twice is once."""
    logging.getLogger(_LOGGERS[0]).addFilter(_templates)
    provider = loggers if loggers is not None else _logs.get_logger_provider()
    if isinstance(provider, LoggerProvider) and not _sdk_compat.has_log_processor(
        provider, CalendarLogProcessor
    ):
        _sdk_compat.first_log_processor(provider, CalendarLogProcessor())
