"""Exporting that never bothers the application: failures are counted, and an outage is one warning."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_shim import counters
from otel_shim._guard import guarded, logger

_R = TypeVar("_R")
_EXPORTER_LOGGERS = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)
_FLUSH_SECONDS = 3.0
"""Longest time for which the end of a server waits for its last telemetry."""
_QUEUE_LOGGER = "opentelemetry.sdk._shared_internal"
_QUEUE_FULL = "Queue full, dropping %s."


class Outage:
    """Whether export works, for all signals of the process together; warns when that changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._ending = False

    def end(self) -> None:
        """Note that the process ends: what cannot be exported now never will be."""
        self._ending = True

    def final(self) -> bool:
        """Whether nothing will be exported any more."""
        return self._ending and self._since is not None

    def failed(self, reason: str) -> None:
        """Note a failure; the first of an outage is the one warning."""
        with self._lock:
            first = self._since is None
            if first:
                self._since = time.monotonic()
        if first:
            logger.warning(
                "telemetry cannot be exported (%s); the application is unaffected, what is lost is "
                "counted (otel_shim.counters_snapshot()), and this is said once for the outage",
                reason,
            )

    def succeeded(self) -> None:
        """Note a success; the first after an outage ends it."""
        if self._since is None:  # without the lock: the common case is that nothing is wrong
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            logger.info("telemetry is exported again after %.0f s", time.monotonic() - since)

    def note(self, signal: str, count: int, success: bool) -> None:
        """Count a batch of a signal."""
        counters.add(f"{signal}_exported" if success else f"{signal}_export_failed", count)
        if success:
            self.succeeded()
        else:
            self.failed(signal)


_outage = Outage()


def _counted(signal: str, export: Callable[[Any], _R], batch: Sequence[Any], failure: _R) -> _R:
    """Export a batch and count its records by result; an exception of the exporter is a failure."""
    try:
        result = failure if _outage.final() else export(batch)
    except Exception as error:  # noqa: BLE001 - an exporter may fail in any way
        if isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError):
            return _without_the_unencodable(signal, export, batch, failure)
        _outage.failed(type(error).__name__)
        result = failure
    _outage.note(signal, len(batch), result != failure)
    return result


def _without_the_unencodable(
    signal: str, export: Callable[[Any], _R], batch: Sequence[Any], failure: _R
) -> _R:
    """Export the halves of a batch that cannot be encoded: one record must not cost all the others."""
    if len(batch) == 1:
        counters.add(f"{signal}_unencodable")
        return failure
    middle = len(batch) // 2
    halves = [_counted(signal, export, part, failure) for part in (batch[:middle], batch[middle:])]
    return next((result for result in halves if result != failure), failure)


class CountingSpanExporter(SpanExporter):
    """An exporter of spans whose results are counted.

    What is to be scrubbed is scrubbed here, because attributes are frozen when a span ends.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export and count a batch."""
        return _counted("spans", self._exporter.export, spans, SpanExportResult.FAILURE)

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


class CountingLogExporter(LogRecordExporter):
    """An exporter of log records whose results are counted."""

    def __init__(self, exporter: LogRecordExporter) -> None:
        self._exporter = exporter

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export and count a batch."""
        return _counted("logs", self._exporter.export, batch, LogRecordExportResult.FAILURE)

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


class _ToOutage(logging.Filter):
    """What an exporter would log for each failed attempt becomes part of the one warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop failures after noting them; let anything below a warning pass."""
        if record.levelno < logging.WARNING:
            return True
        _outage.failed(record.getMessage()[:200])
        return False


class _CountDrops(logging.Filter):
    """What a full queue drops is counted; it stands before the SDK's own filter of repetitions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop and count the message of a full queue."""
        if record.msg != _QUEUE_FULL:
            return True
        args = record.args if isinstance(record.args, tuple) else ("",)
        counters.add(f"{'logs' if 'log' in str(args[0]).lower() else 'spans'}_queue_dropped")
        return False


def quiet_exporters() -> None:
    """Replace the exporters' own warnings by the one of an outage, and count what is dropped.

    An outage does not hold up the end of the process either: what is left would wait for one timeout
    after the other.
    """
    atexit.register(_outage.end)  # runs before the exit of the providers, which exist already
    for name in _EXPORTER_LOGGERS:
        logging.getLogger(name).filters.insert(0, _ToOutage())
    logging.getLogger(_QUEUE_LOGGER).filters.insert(0, _CountDrops())


@guarded(default=None)
def flush(seconds: float = _FLUSH_SECONDS) -> None:
    """Export what is queued, all signals at once, and wait for it no longer than so many seconds.

    For a process that ends without Python's own exit: uvicorn, when it has shut down in good order,
    ends by the signal that it was sent.
    """
    deadline = time.monotonic() + seconds
    providers = (
        trace.get_tracer_provider(),
        _logs.get_logger_provider(),
        metrics.get_meter_provider(),
    )
    flushes = [p.force_flush for p in providers if hasattr(p, "force_flush")]
    threads = [threading.Thread(target=guarded(default=None)(f), daemon=True) for f in flushes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
