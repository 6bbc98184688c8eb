"""otel_shim.signals.export: an outage is one warning and a count; one bad record costs only itself."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import requests
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_shim import counters
from otel_shim.signals import export
from tests.unit.telemetry import Telemetry


class Backend(SpanExporter):
    """Encodes like the official exporter, and behaves as it is told."""

    def __init__(self, behave: Callable[[], SpanExportResult]) -> None:
        self.behave = behave
        self.names: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        result = self.behave()
        if result is SpanExportResult.SUCCESS:
            self.names += [span.name for span in spans]
        return result


@pytest.fixture(autouse=True)
def _no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_outage", export.Outage())


@pytest.fixture
def spans(telemetry: Telemetry) -> Sequence[ReadableSpan]:
    """Five spans, of which the third cannot be encoded."""
    for name in ("a", "b", "bad \ud800", "d", "e"):
        telemetry.tracer().start_span(name).end()
    return telemetry.spans()


def _success() -> SpanExportResult:
    return SpanExportResult.SUCCESS


def _failure() -> SpanExportResult:
    return SpanExportResult.FAILURE


def _refused() -> SpanExportResult:
    raise ConnectionError("refused")


def test_one_bad_record_costs_only_itself(
    spans: Sequence[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    """The others of its batch arrive, in their order; it is counted, and is no outage."""
    backend = Backend(_success)
    exporter = export.CountingSpanExporter(backend)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    assert backend.names == ["a", "b", "d", "e"]
    assert counters.snapshot() == {"spans_exported": 4, "spans_unencodable": 1}
    assert caplog.records == []


@pytest.mark.parametrize("behave", [_failure, _refused])
def test_outage_is_one_warning(
    behave: Callable[[], SpanExportResult],
    spans: Sequence[ReadableSpan],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However long it lasts it is said once; what is lost is counted; its end is said too."""
    backend = Backend(behave)
    exporter = export.CountingSpanExporter(backend)
    with caplog.at_level(logging.INFO, "otel_shim"):
        for _ in range(3):
            assert exporter.export(spans[:2]) is SpanExportResult.FAILURE
        backend.behave = _success
        assert exporter.export(spans[:2]) is SpanExportResult.SUCCESS
        assert exporter.export(spans[:2]) is SpanExportResult.SUCCESS
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert "telemetry cannot be exported" in caplog.records[0].getMessage()
    assert counters.snapshot() == {"spans_export_failed": 6, "spans_exported": 4}


def test_signals_fail_apart(
    spans: Sequence[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    """Logs that nobody takes are one warning, while spans go through and go on to at the end."""
    backend = Backend(_success)
    with caplog.at_level(logging.INFO, "otel_shim"):
        for _ in range(3):
            export.CountingLogExporter(Logs()).export([1])  # type: ignore[list-item]
            export.CountingSpanExporter(backend).export(spans[:1])
        export._outage.failed("metrics", "404")
        export._outage.end()
        export.CountingSpanExporter(backend).export(spans[:1])
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert backend.names == ["a"] * 4


def test_end_of_the_process_in_an_outage(spans: Sequence[ReadableSpan]) -> None:
    """What cannot be exported any more is not tried: the process ends in time."""
    backend = Backend(_refused)
    exporter = export.CountingSpanExporter(backend)
    exporter.export(spans[:2])
    export._outage.end()
    backend.behave = _success
    assert exporter.export(spans[:2]) is SpanExportResult.FAILURE
    assert backend.names == []
    assert counters.snapshot() == {"spans_export_failed": 4}


class Logs(LogRecordExporter):
    """Fails in every way."""

    def export(self, batch: Any) -> LogRecordExportResult:
        raise RuntimeError("any fault")

    def shutdown(self) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def test_logs_are_counted_too() -> None:
    """Any exception of an exporter is a failure, never the caller's."""
    assert export.CountingLogExporter(Logs()).export([1, 2, 3]) is LogRecordExportResult.FAILURE  # type: ignore[list-item]
    assert counters.snapshot() == {"logs_export_failed": 3}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The exporters' loggers as the distro leaves them."""
    names = (*export._EXPORTER_LOGGERS, export._QUEUE_LOGGER)
    before = {name: list(logging.getLogger(name).filters) for name in names}
    registered: list[Any] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    export.quiet_exporters()
    assert registered == [export._end]
    yield
    for name, filters in before.items():
        logging.getLogger(name).filters[:] = filters


def test_exporters_own_warnings_become_the_one(
    quiet: None, caplog: pytest.LogCaptureFixture
) -> None:
    """What an exporter would say for each attempt is said once."""
    for _ in range(3):
        logging.getLogger(list(export._EXPORTER_LOGGERS)[1]).error(
            "Failed to export: %s", "refused"
        )
    assert [r.name for r in caplog.records] == ["otel_shim"]
    assert "Failed to export: refused" in caplog.records[0].getMessage()


def test_the_one_warning_quotes_no_secret(quiet: None, caplog: pytest.LogCaptureFixture) -> None:
    """Errors of requests have headers and addresses in their text: a token that ends in a line break is one."""
    for headers in ({"api-key": "s3cret\n"}, {}):
        with pytest.raises(requests.RequestException) as failed:
            requests.post("http://127.0.0.1:9/v1/traces?key=s3cret", headers=headers, timeout=5)
        assert "s3cret" in str(failed.value)
        logging.getLogger(next(iter(export._EXPORTER_LOGGERS))).error("failed: %s", failed.value)
        export._outage.succeeded("spans")
    invalid, refused = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "InvalidHeader" in invalid and "Connection refused" in refused
    assert "s3cret" not in caplog.text


def test_full_queue_is_counted(quiet: None, caplog: pytest.LogCaptureFixture) -> None:
    """Drops are counted for each signal, and not logged."""
    logger = logging.getLogger(export._QUEUE_LOGGER)
    logger.warning(export._QUEUE_FULL, "Span")
    logger.warning(export._QUEUE_FULL, "Log")
    logger.warning("something else")
    assert [r.getMessage() for r in caplog.records] == ["something else"]
    assert counters.snapshot() == {"spans_queue_dropped": 1, "logs_queue_dropped": 1}


class Provider:
    """A provider whose flush takes as long as it is told."""

    def __init__(
        self, until: threading.Event | None = None, error: Exception | None = None
    ) -> None:
        self.until = until
        self.error = error
        self.flushed = threading.Event()

    def force_flush(self) -> None:
        if self.until is not None:
            self.until.wait(30)
        self.flushed.set()
        if self.error is not None:
            raise self.error


def test_flush_takes_all_signals_and_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal whose exporter hangs or breaks keeps neither the others nor the process."""
    release = threading.Event()
    hangs, breaks, works = Provider(release), Provider(error=RuntimeError("x")), Provider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: hangs)
    monkeypatch.setattr(_logs, "get_logger_provider", lambda: breaks)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: works)
    export.flush(0.05)
    assert works.flushed.wait(5) and breaks.flushed.is_set() and not hangs.flushed.is_set()
    release.set()
    assert hangs.flushed.wait(5)


class Meeting(SpanExporter, LogRecordExporter, MetricExporter):
    """Takes a batch once all signals try to send one, or once it is let go; notes what happens to it."""

    def __init__(self, together: threading.Barrier, stuck: threading.Event | None = None) -> None:
        MetricExporter.__init__(self)
        self.together = together
        self.stuck = stuck
        self.said: list[str] = []

    def export(self, batch: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        self.together.wait(30)
        if self.stuck is not None:
            self.stuck.wait(60)
        self.said.append("sent")
        return SpanExportResult.SUCCESS

    def shutdown(self, *_: Any, **__: Any) -> None:
        self.said.append("shut down")

    def force_flush(self, *_: Any, **__: Any) -> bool:
        return True


def _all_signals(monkeypatch: pytest.MonkeyPatch, exporters: Sequence[Any]) -> list[Any]:
    """The three providers, each with something to send at the end."""
    spans, logs, numbers = exporters
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(spans))
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(logs))
    meters = MeterProvider([PeriodicExportingMetricReader(numbers)], shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(_logs, "get_logger_provider", lambda: loggers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    tracers.get_tracer("t").start_span("s").end()
    loggers.get_logger("l").emit(_logs.LogRecord(body="b"))
    meters.get_meter("m").create_counter("c").add(1)
    return [loggers, meters, tracers]


def test_the_end_sends_all_signals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for another; then the providers shut down as ever."""
    together = threading.Barrier(3)
    exporters = [Meeting(together) for _ in range(3)]
    providers = _all_signals(monkeypatch, exporters)
    export._end()
    assert [each.said for each in exporters] == [["sent"]] * 3
    for each in providers:
        each.shutdown()
    assert [each.said for each in exporters] == [["sent", "shut down"]] * 3


def test_the_end_leaves_behind_what_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One signal that is never taken: the others are sent, its loss is said, and its provider waits no more."""
    monkeypatch.setattr(export, "_FLUSH_SECONDS", 1.0)
    monkeypatch.setattr(export, "_outage", export.Outage())
    together, release = threading.Barrier(3), threading.Event()
    exporters = [Meeting(together, release if hangs else None) for hangs in (True, False, False)]
    providers = _all_signals(monkeypatch, exporters)
    export._end()
    assert [each.said for each in exporters] == [[], ["sent"], ["sent"]]
    assert "cannot be exported (what is left: no answer before the process ends)" in caplog.text
    waited: list[float | None] = []
    join = threading.Thread.join

    def noted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.is_alive():
            waited.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", noted)
    for each in providers:
        each.shutdown()
    assert waited == [] and exporters[0].said == ["shut down"]
    release.set()


def test_patience() -> None:
    """3 s since anything arrived, 30 s in all."""
    patience = export.Patience(100.0, 7)
    assert patience.lasts(102.9, 7) and not patience.lasts(103.0, 7)
    assert patience.lasts(103.0, 8) and patience.lasts(105.9, 8) and not patience.lasts(106.0, 8)
    assert all(patience.lasts(106.0 + each, 9 + each) for each in range(24))
    assert not patience.lasts(130.0, 50)
