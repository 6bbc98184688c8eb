"""Exporting that never bothers the application: failures are counted, and an outage is one warning."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_shim import _sdk_compat, counters, locks
from otel_shim._guard import described, guarded, logger

_R = TypeVar("_R")
_EXPORTER_LOGGERS = {
    "opentelemetry.exporter.otlp.common.http": "spans",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter": "spans",
    "opentelemetry.exporter.otlp.proto.http._log_exporter": "logs",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter": "metrics",
}
"""The loggers of the exporters, and the signal of each."""
_NEVER_HEARD_TO_SUCCEED = {"metrics"}
"""Signals whose failures are all that is heard of them; they do not keep an outage from being over."""
_TOGETHER_SECONDS = 120.0
"""What fails within this time of the first belongs to the same outage; metrics are sent once a minute."""
_FLUSH_SECONDS = 3.0
"""Longest time for which the end of a process waits for its last telemetry, while nothing of it arrives."""
_LONGEST_SECONDS = 30.0
"""Longest time for which an end in good order waits, though it arrives bit by bit; as long the SDK waits for a signal."""
_LOOK_SECONDS = 0.05
_QUEUE_LOGGER = "opentelemetry.sdk._shared_internal"
_QUEUE_FULL = "Queue full, dropping %s."


class Outage:
    """Which signals cannot be exported; one warning for all that fail together.

    A backend that takes no logs stays one warning, however often it refuses, while spans go through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._since = 0.0
        self._ending = False
        self.delivered = 0
        """How many batches were taken; only whether it changes is of interest."""

    def forked(self) -> None:
        """Take a lock of its own in a forked process: a thread of the parent may have held the other."""
        self._lock = threading.Lock()

    def end(self) -> None:
        """Note that the process ends: what cannot be exported now never will be."""
        self._ending = True

    def is_known(self) -> bool:
        """Whether anything cannot be exported at the moment."""
        return bool(self._failing)

    def final(self, signal: str) -> bool:
        """Whether nothing of a signal will be exported any more."""
        return self._ending and signal in self._failing

    def failed(self, signal: str, reason: str) -> None:
        """Note a failure; the first of an outage is the one warning."""
        if signal in self._failing:
            return
        now = time.monotonic()
        with self._lock:
            first = not self._failing or now - self._since > _TOGETHER_SECONDS
            self._failing.add(signal)
            self._since = now if first else self._since
        if first:
            logger.warning(
                "telemetry cannot be exported (%s: %s); the application is unaffected, what is lost "
                "is counted (otel_shim.counters_snapshot()), and this is said once for the outage",
                signal,
                reason,
            )

    def succeeded(self, signal: str) -> None:
        """Note a success; the one after which nothing fails any more ends the outage."""
        if (
            signal not in self._failing
        ):  # without the lock: the common case is that nothing is wrong
            return
        with self._lock:
            self._failing.discard(signal)
            over = self._failing <= _NEVER_HEARD_TO_SUCCEED
            if over:
                self._failing.clear()
        if over:
            logger.info("telemetry is exported again after %.0f s", time.monotonic() - self._since)

    def note(self, signal: str, count: int, success: bool) -> None:
        """Count a batch of a signal."""
        counters.add(f"{signal}_exported" if success else f"{signal}_export_failed", count)
        if success:
            self.delivered += 1
            self.succeeded(signal)
        else:
            self.failed(signal, "refused")


_outage = Outage()


def _after_fork() -> None:
    _outage.forked()


locks.in_children(_after_fork)


def is_failing() -> bool:
    """Whether an outage is known, in this process or in the one that it was forked from."""
    return _outage.is_known()


def _counted(signal: str, export: Callable[[Any], _R], batch: Sequence[Any], failure: _R) -> _R:
    """Export a batch and count its records by result; an exception of the exporter is a failure."""
    try:
        result = failure if _outage.final(signal) else export(batch)
    except Exception as error:  # noqa: BLE001 - an exporter may fail in any way
        if isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError):
            return _without_the_unencodable(signal, export, batch, failure)
        _outage.failed(signal, type(error).__name__)
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

    def __init__(self, signal: str) -> None:
        super().__init__()
        self._signal = signal

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop failures after noting them; let anything below a warning pass."""
        if record.levelno < logging.WARNING:
            return True
        _outage.failed(self._signal, _told(record)[:200])
        return False


def _told(record: logging.LogRecord) -> str:
    """What an exporter says, without the text of errors: requests quotes addresses and headers in it."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    args = [described(arg) if isinstance(arg, BaseException) else arg for arg in record.args]
    return str(record.msg) % tuple(args)


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
    atexit.register(_end)  # runs before the exit of the providers, which exist already
    for name, signal in _EXPORTER_LOGGERS.items():
        logging.getLogger(name).filters.insert(0, _ToOutage(signal))
    logging.getLogger(_QUEUE_LOGGER).filters.insert(0, _CountDrops())


class Patience:
    """How long the end waits: a while since anything arrived, and not too long in all. Times in seconds."""

    def __init__(self, now: float, delivered: int) -> None:
        self._over = now + _LONGEST_SECONDS
        self._delivered = delivered
        self._until = now + _FLUSH_SECONDS

    def lasts(self, now: float, delivered: int) -> bool:
        """Whether to wait on, where so much has arrived by now."""
        if delivered != self._delivered:
            self._delivered, self._until = delivered, now + _FLUSH_SECONDS
        return now < min(self._until, self._over)


@guarded(default=None)
def _end() -> None:
    """Send what is left, all signals at once, and let nobody wait any more for what does not arrive."""
    _outage.end()
    patience = Patience(time.monotonic(), _outage.delivered)
    with _sdk_compat.last_exports(*providers()) as threads:
        for thread in threads:
            while thread.is_alive() and patience.lasts(time.monotonic(), _outage.delivered):
                thread.join(_LOOK_SECONDS)
        if any(thread.is_alive() for thread in threads):
            _outage.failed("what is left", "no answer before the process ends")


def providers() -> tuple[Any, Any, Any]:
    """The providers of the process: of spans, of logs and of metrics."""
    return (
        trace.get_tracer_provider(),
        _logs.get_logger_provider(),
        metrics.get_meter_provider(),
    )


@guarded(default=None)
def flush(seconds: float = _FLUSH_SECONDS, only: Iterable[Any] | None = None) -> None:
    """Export what is queued, all signals at once, and wait for it no longer than so many seconds.

    ``only`` are the providers whose signals are meant, by default all three.

    For a process that ends without Python's own exit: uvicorn, when it has shut down in good order,
    ends by the signal that it was sent.
    """
    deadline = time.monotonic() + seconds
    flushed = only or providers()
    flushes = [p.force_flush for p in flushed if hasattr(p, "force_flush")]
    threads = [threading.Thread(target=guarded(default=None)(f), daemon=True) for f in flushes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
