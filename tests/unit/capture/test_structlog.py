"""structlog, in the setups of its documentation: body, fields and person on every record, each once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim.capture import structlog as capture
from otel_shim.signals import logs
from tests.unit.telemetry import Telemetry

SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.processors.StackInfoRenderer(),
]
JSON = structlog.processors.JSONRenderer()
Install = Callable[..., None]


@pytest.fixture
def install(
    telemetry: Telemetry, logging_restored: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Install]:
    """The shim as the distro installs it, and structlog as it is after its import."""
    logging.root.handlers[:] = []
    logging.root.setLevel(logging.INFO)
    for kind, name in (
        (structlog.stdlib.ProcessorFormatter, "__init__"),
        (structlog.BoundLoggerBase, "_process_event"),
    ):
        monkeypatch.setattr(kind, name, getattr(kind, name))
    structlog.reset_defaults()

    def take(log_format: str = "json") -> None:
        capture.install(logs.take_records(log_format, "shop"), shown=log_format == "json")

    yield take
    structlog.reset_defaults()


def _over_logging(*processors: Any, **formatter: Any) -> None:
    """As under "Rendering using structlog-based formatters within logging"."""
    structlog.configure(
        processors=[*SHARED, *processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stdout)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    options = {"foreign_pre_chain": SHARED, "processors": [remove, JSON], **formatter}
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(**options))
    logging.root.addHandler(handler)


def _in_request(telemetry: Telemetry, work: Callable[[], None]) -> tuple[str, str]:
    """Work done in a request of somebody; its trace and span."""
    with telemetry.tracer().start_as_current_span("GET /", kind=SpanKind.SERVER) as span:
        otel_shim.bind(org_id="acme", user_id="ada")
        work()
        at = span.get_span_context()
    return f"{at.trace_id:032x}", f"{at.span_id:016x}"


def _line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    return dict(json.loads(line))


PLUMBING = {"_logger", "_name", "_record", "_from_structlog", "otel_shim_identity", "otelTraceID"}


def test_events_over_logging(
    install: Install, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line by its own renderer with trace and person; one record whose body is the event."""
    install()
    _over_logging()

    def work() -> None:
        structlog.get_logger("shop").error("no paper", order=7, error_code="out_of_paper")

    trace_id, span_id = _in_request(telemetry, work)
    line = _line(capsys)
    assert (line["event"], line["order"], line["logger"]) == ("no paper", 7, "shop")
    assert (line["trace_id"], line["span_id"]) == (trace_id, span_id)
    assert (line["saas.org.id"], line["saas.error.code"]) == ("acme", "out_of_paper")
    (record,) = telemetry.records()
    assert (record.body, record.severity) == ("no paper", "ERROR")
    attributes = dict(record.attributes)
    assert (attributes["order"], attributes["saas.error.code"]) == (7, "out_of_paper")
    assert attributes["saas.org.id"] == "acme"
    for fields in (line, attributes):
        assert not PLUMBING & fields.keys() and fields["user.hash"]
    assert not {"event", "level", "logger", "timestamp", "error_code"} & attributes.keys()


def test_records_of_others_in_its_formatter(
    install: Install, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library that logs by ``logging`` is on the same console, and correlated there too."""
    install()
    _over_logging(foreign_pre_chain=[*SHARED, structlog.stdlib.ExtraAdder()])
    work = logging.getLogger("library").warning
    trace_id, _ = _in_request(telemetry, lambda: work("slow", extra={"seconds": 3}))
    line = _line(capsys)
    assert (line["event"], line["seconds"], line["trace_id"]) == ("slow", 3, trace_id)
    assert line["saas.org.id"] == "acme" and not PLUMBING & line.keys()
    (record,) = telemetry.records()
    assert record.body == "slow"


def _handled(log: Callable[..., None], **fields: Any) -> None:
    try:
        raise LookupError("no such order")
    except LookupError:
        log("failed", **fields)


@pytest.mark.parametrize("formatted", [False, True])
def test_exceptions(
    formatted: bool, install: Install, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its class is the code, whether a processor has made text of it or not."""
    install()
    _over_logging(*([structlog.processors.format_exc_info] if formatted else []))
    _in_request(telemetry, lambda: _handled(structlog.get_logger("shop").exception))
    (record,) = telemetry.records()
    attributes = dict(record.attributes)
    assert attributes["saas.error.code"] == attributes["exception.type"] == "LookupError"
    assert attributes["exception.message"] == "no such order"
    assert attributes["exception.stacktrace"].count("Traceback") == 1
    assert not {"exc_info", "exception"} & attributes.keys()
    assert _line(capsys)["saas.error.code"] == "LookupError"


@pytest.mark.parametrize("alone", [False, True])
def test_no_name_of_a_field_is_taken(alone: bool, install: Install, telemetry: Telemetry) -> None:
    """Those of what every record of ``logging`` has arrive as fields of the event."""
    install()
    if not alone:
        _over_logging()
    fields = {"module": "billing", "process": "nightly", "name": "ada", "args": "-v"}
    structlog.get_logger().info("listed", **fields)
    (record,) = telemetry.records()
    assert record.body == "listed" and fields.items() <= record.attributes.items()


def test_another_exception_is_not_taken_for_it(install: Install, telemetry: Telemetry) -> None:
    """What is handled at the moment may be another one than what the event is about."""
    install()
    _over_logging(structlog.processors.format_exc_info)
    log = structlog.get_logger("shop").error
    _in_request(telemetry, lambda: _handled(log, exc_info=ValueError("earlier")))
    _in_request(telemetry, lambda: _handled(log))
    about, nothing = (dict(item.attributes) for item in telemetry.records())
    assert "exception.type" not in about and "earlier" in about["exception.stacktrace"]
    assert not [key for key in nothing if key.startswith(("exception", "saas.error"))]


def test_formats_stay_in_text_mode(
    install: Install, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is added to what is written; what is sent is the same."""
    install("text")
    _over_logging()
    _in_request(telemetry, lambda: structlog.get_logger("shop").error("no paper"))
    assert _line(capsys).keys() == {"event", "level", "logger", "timestamp"}
    assert [item.body for item in telemetry.records()] == ["no paper"]


def test_as_it_is_unless_configured(
    install: Install, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints, past ``logging``: still one line, one record, both with the person."""
    install()
    log = structlog.get_logger()
    trace_id, _ = _in_request(telemetry, lambda: log.bind(order=7).warning("no paper"))
    out = capsys.readouterr().out
    assert out.count("no paper") == 1 and trace_id in out and "acme" in out
    (record,) = telemetry.records()
    assert (record.body, record.severity) == ("no paper", "WARN")
    attributes = dict(record.attributes)
    assert (attributes["order"], attributes["saas.org.id"]) == (7, "acme")
    assert record.logger == "structlog"


def test_what_a_processor_drops_or_masks_is_not_sent(
    install: Install, telemetry: Telemetry
) -> None:
    """The event is taken as its renderer gets it."""

    def mask(_: Any, __: str, event: Any) -> Any:
        if event["event"] == "secret":
            raise structlog.DropEvent
        return {**event, "card": "***"}

    install()
    structlog.configure(processors=[mask, JSON])
    structlog.get_logger().info("secret")
    structlog.get_logger().info("paid", card="4111")
    (record,) = telemetry.records()
    assert dict(record.attributes)["card"] == "***"


def test_its_own_help_for_tests_still_works(install: Install) -> None:
    """``capture_logs`` changes processors under loggers that exist."""
    install()
    log = structlog.get_logger().bind()
    log.info("before")
    with structlog.testing.capture_logs() as captured:
        log.info("seen", order=7)
    assert captured == [{"event": "seen", "order": 7, "log_level": "info"}]
