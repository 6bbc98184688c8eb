"""What is logged of calendars, without people's data.

caldav writes whole requests and answers at DEBUG (titles, attendees, places, logins), addresses at INFO,
and through the root logger an answer that is not XML. HTTP clients write the addresses of their
requests, httpx at INFO, and the address of a feed is its password. So what caldav logs below WARNING, or
anybody in the middle of a request to a calendar, is exported without its text; of warnings and errors
the first line is kept, without addresses.
https://github.com/python-caldav/caldav/blob/v3.6.0/caldav/response.py
"""

from __future__ import annotations

import re
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
_LONGEST = 200


class CalendarLogProcessor(LogRecordProcessor):
    """Takes people's data out of log records of calendars, before any other processor sees them."""

    @guarded(default=None)
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Rewrite the body of a record of caldav's, or of a request; any other is left alone."""
        record, scope = log_record.log_record, log_record.instrumentation_scope
        logger = scope.name if scope is not None else ""
        if not (_is_caldavs(logger, record.body) or in_request(record.context)):
            return
        severe = (record.severity_number or SeverityNumber.UNSPECIFIED).value
        record.body = _first_line(record.body) if severe >= SeverityNumber.WARN.value else WITHHELD
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


def _first_line(body: Any) -> str:
    line = str(body).partition("\n")[0][:_LONGEST]
    return _ADDRESS.sub(lambda found: f"{found.group(1) or ''}REDACTED", line)


@guarded(default=None)
def install(loggers: Any = None) -> None:
    """Put the processor before all others of a provider, by default the global one; twice is once."""
    provider = loggers if loggers is not None else _logs.get_logger_provider()
    if isinstance(provider, LoggerProvider) and not _sdk_compat.has_log_processor(
        provider, CalendarLogProcessor
    ):
        _sdk_compat.first_log_processor(provider, CalendarLogProcessor())
