"""otel_shim.signals.logs: every record once over OTLP, as JSON where it is written, and no handler of ours."""

from __future__ import annotations

import copy
import json
import logging
import logging.config
import logging.handlers
import pickle
import queue
import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import _logs, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import context, counters
from otel_shim.peers import Trust
from otel_shim.signals import logs
from otel_shim.signals.logs import IdentityLogRecordProcessor
from otel_shim.signals.spans import IdentitySpanProcessor
from tests.unit.telemetry import Record, Telemetry, record_with

Take = Callable[..., Any]
APP = logging.getLogger("app")


class Out:
    """Standard output of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._seen = ""

    def getvalue(self) -> str:
        """Everything written so far."""
        self._seen += self._capsys.readouterr().out
        return self._seen

    def basic(self, **options: Any) -> None:
        """Configure logging the usual way; pytest's own handlers would be in the way."""
        logging.root.handlers[:] = []
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, **options)


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    """Standard output of the test."""
    return Out(capsys)


@pytest.fixture
def take(telemetry: Telemetry, logging_restored: None) -> Take:
    """Takes records as the distro does, from a root logger without handlers."""
    logging.root.handlers[:] = []
    logging.root.setLevel(logging.INFO)
    return lambda log_format="json": logs.take_records(log_format, "shop")


def _loggers() -> list[tuple[str, logging.Logger]]:
    known = logging.root.manager.loggerDict.items()
    return [(name, logger) for name, logger in known if isinstance(logger, logging.Logger)]


def _lines(out: Out) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _request(telemetry: Telemetry) -> Any:
    return telemetry.tracer().start_as_current_span(
        "GET /",
        kind=SpanKind.SERVER,
        attributes={"http.request.method": "GET", "http.route": "/orders/{id}"},
    )


def _bound(telemetry: Telemetry) -> list[Record]:
    """A record of the application inside a request of somebody."""
    with _request(telemetry):
        otel_shim.bind(org_id="acme", user_id="ada", actor_role="admin")
        with otel_shim.operation("planning.publish"):
            APP.warning("hello %s", "world", extra={"order": 7})
    return telemetry.records()


# --- what a record says ------------------------------------------------------------------------------


def test_json_line_has_everything(take: Take, telemetry: Telemetry, out: Out) -> None:
    """Trace, span, organisation, pseudonym, role, endpoint, operation and the application's own fields."""
    out.basic()
    take()
    _bound(telemetry)
    (line,) = _lines(out)
    span = next(s for s in telemetry.spans() if s.name == "planning.publish").context
    assert span is not None
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("user.hash").count(".") == 1
    assert line == {
        "severity": "WARNING",
        "logger": "app",
        "message": "hello world",
        "trace_id": f"{span.trace_id:032x}",
        "span_id": f"{span.span_id:016x}",
        "saas.org.id": "acme",
        "saas.actor.type": "user",
        "saas.actor.role": "admin",
        "saas.operation": "planning.publish",
        "http.request.method": "GET",
        "http.route": "/orders/{id}",
        "order": 7,
    }


def test_otlp_record_says_the_same(take: Take, telemetry: Telemetry, out: Out) -> None:
    """The same fields arrive over OTLP, once."""
    out.basic()
    take()
    (record,) = _bound(telemetry)
    (line,) = _lines(out)
    assert record.body == "hello world" and record.severity == "WARN"
    assert f"{record.trace_id:032x}" == line["trace_id"]
    shared = {k: v for k, v in line.items() if "." in k or k == "order"}
    assert dict(record.attributes) == shared


def test_outside_of_work_nothing_is_claimed(take: Take, telemetry: Telemetry, out: Out) -> None:
    """A record of nobody has no identity and no trace."""
    out.basic()
    take()
    APP.info("nobody")
    (line,) = _lines(out)
    assert set(line) == {"timestamp", "severity", "logger", "message"}
    assert dict(telemetry.records()[0].attributes) == {}


def test_error_code(take: Take, telemetry: Telemetry, out: Out) -> None:
    """The application's own code, else the class of the exception: in JSON and over OTLP."""
    out.basic()
    take()
    APP.error("own", extra={"error_code": "quota_exceeded"})
    try:
        raise LookupError("x")
    except LookupError:
        APP.exception("class")
        APP.exception("both", extra={"error_code": "missing"})
    APP.info("none")
    expected = ["quota_exceeded", "LookupError", "missing", None]
    assert [line.get("saas.error.code") for line in _lines(out)] == expected
    assert [r.attributes.get("saas.error.code") for r in telemetry.records()] == expected
    assert _lines(out)[1]["exception.type"] == "LookupError"
    assert "Traceback" in _lines(out)[1]["exception.stacktrace"]


def test_own_fields_win(take: Take, telemetry: Telemetry, out: Out) -> None:
    """What the record says itself is not overwritten."""
    out.basic()
    take()
    with _request(telemetry):
        otel_shim.bind(org_id="acme")
        APP.info("x", extra={"saas.org.id": "own"})
    assert _lines(out)[0]["saas.org.id"] == "own"
    assert telemetry.records()[0].attributes["saas.org.id"] == "own"


def test_stack_is_kept(take: Take, telemetry: Telemetry, out: Out) -> None:
    """A record made with ``stack_info`` keeps its stack."""
    out.basic()
    take()
    APP.info("where", stack_info=True)
    assert "test_stack_is_kept" in _lines(out)[0]["code.stacktrace"]


class Unprintable:
    """Cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class UnprintableError(Exception):
    """An exception that cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "value",
    [object(), {(1, 2): 3}, {1: {2}}, float("nan"), b"\xff", 2**70, "\ud800", Unprintable()],
    ids=lambda v: type(v).__name__,
)
def test_whatever_is_logged_is_written(
    value: Any,
    take: Take,
    telemetry: Telemetry,
    out: Out,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A field that JSON cannot hold costs neither the line nor the record."""
    out.basic()
    take()
    APP.info("still here", extra={"field": value})
    (line,) = (json.loads(x, parse_constant=_no_constant) for x in out.getvalue().splitlines())
    assert line["message"] == "still here" and "field" in line
    assert len(telemetry.records()) == 1
    assert out.getvalue().encode()
    assert counters.snapshot().get("internal_errors") is None


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_cyclic_field(take: Take, telemetry: Telemetry, out: Out) -> None:
    """A structure that contains itself is written somehow."""
    out.basic()
    take()
    cycle: list[Any] = []
    cycle.append(cycle)
    APP.info("still here", extra={"field": cycle})
    assert _lines(out)[0]["message"] == "still here"


def test_unprintable_exception(take: Take, telemetry: Telemetry, out: Out) -> None:
    """The line is written with the exception's class."""
    out.basic()
    take()
    try:
        raise UnprintableError
    except UnprintableError:
        APP.exception("failed")
    (line,) = _lines(out)
    assert (line["message"], line["exception.type"]) == ("failed", "UnprintableError")


# --- whose handlers ----------------------------------------------------------------------------------


def _handlers() -> dict[str, list[logging.Handler]]:
    found = {name: list(logger.handlers) for name, logger in _loggers()}
    return {**found, "": list(logging.root.handlers)}


def test_no_handler_is_ever_added(take: Take, telemetry: Telemetry, out: Out) -> None:
    """Every logger has the handlers it had, and ``basicConfig`` still finds the root unconfigured."""
    logging.root.handlers[:] = []  # pytest's
    before = _handlers()
    take()
    APP.warning("x")
    assert _handlers() == before
    assert not logging.root.hasHandlers()
    assert len(_lines(out)) == 1
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    assert len(logging.root.handlers) == 1
    APP.warning("y")
    assert len(_lines(out)) == 2
    assert len(telemetry.records()) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_dict_config(when: str, take: Take, telemetry: Telemetry, out: Out) -> None:
    """Configured before or after, by a dictionary, with loggers that do not propagate: one line, one record."""
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "plain",
            }
        },
        "root": {"handlers": ["out"], "level": "INFO"},
        "loggers": {"app": {"handlers": ["out"], "propagate": False, "level": "INFO"}},
    }
    logging.root.handlers[:] = []
    if when == "before":
        logging.config.dictConfig(settings)
    take()
    if when == "after":
        logging.config.dictConfig(settings)
    APP.info("mine")
    logging.getLogger("library").info("theirs")
    assert [line["message"] for line in _lines(out)] == ["mine", "theirs"]
    assert [r.body for r in telemetry.records()] == ["mine", "theirs"]


def test_uvicorns_loggers(take: Take, telemetry: Telemetry, out: Out) -> None:
    """Uvicorn's default configuration writes JSON, and each of its lines is one record."""
    from uvicorn.config import LOGGING_CONFIG

    take()
    settings = copy.deepcopy(LOGGING_CONFIG)
    settings["handlers"]["default"]["stream"] = "ext://sys.stdout"
    logging.config.dictConfig(settings)
    with _request(telemetry):
        otel_shim.bind(org_id="acme")
        logging.getLogger("uvicorn.access").info(
            '%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/", "1.1", 200
        )
    logging.getLogger("uvicorn.error").info("started", extra={"color_message": "\x1b[1mstarted"})
    access, error = _lines(out)
    assert access["message"] == '127.0.0.1:1 - "GET / HTTP/1.1" 200'
    assert access["saas.org.id"] == "acme"
    assert (error["logger"], error["message"]) == ("uvicorn.error", "started")
    assert "color_message" not in error
    assert len(telemetry.records()) == 2


class Custom(logging.Formatter):
    """A format that somebody chose."""

    def format(self, record: logging.LogRecord) -> str:
        trace_id = getattr(record, "otelTraceID", None)
        return f"custom {record.getMessage()} {trace_id}"


def test_custom_formatter_is_left_alone(take: Take, telemetry: Telemetry, out: Out) -> None:
    """An application's own formatter stays, and finds the names of OpenTelemetry's instrumentation."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Custom())
    APP.addHandler(handler)
    APP.propagate = False
    take()
    with _request(telemetry) as span:
        APP.info("x")
    assert out.getvalue() == f"custom x {span.get_span_context().trace_id:032x}\n"


def test_files_are_left_alone(take: Take, telemetry: Telemetry, tmp_path: Any) -> None:
    """What is written elsewhere than to the console keeps its format."""
    handler = logging.FileHandler(tmp_path / "log")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    APP.addHandler(handler)
    take()
    APP.warning("x")
    handler.close()
    assert (tmp_path / "log").read_text() == "WARNING x\n"


def test_text_format(take: Take, telemetry: Telemetry, out: Out) -> None:
    """``OTEL_SHIM_LOG_FORMAT=text`` leaves every format, and still sends over OTLP."""
    out.basic(format="%(levelname)s %(message)s")
    take("text")
    _bound(telemetry)
    assert out.getvalue() == "WARNING hello world\n"
    assert telemetry.records()[0].attributes["saas.org.id"] == "acme"


def test_levels_and_filters_hold(take: Take, telemetry: Telemetry, out: Out) -> None:
    """What a logger does not let through is not sent either."""
    out.basic()
    take()
    APP.debug("too low")
    APP.addFilter(lambda record: "secret" not in record.msg)
    APP.info("secret")
    APP.disabled = True
    APP.error("disabled")
    APP.disabled = False
    APP.filters.clear()
    assert out.getvalue() == "" and telemetry.records() == []


def test_own_loggers_are_not_sent(take: Take, telemetry: Telemetry, out: Out) -> None:
    """What the shim and the SDK log is written and not sent: an outage must not feed itself."""
    out.basic()
    take()
    logging.getLogger("otel_shim").warning("a")
    logging.getLogger("opentelemetry.sdk").warning("b")
    assert len(_lines(out)) == 2 and telemetry.records() == []


# --- queues ------------------------------------------------------------------------------------------


def test_queue_handler(take: Take, telemetry: Telemetry, out: Out) -> None:
    """Written by another thread later: the identity of where it was logged, and the error's code."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    APP.addHandler(logging.handlers.QueueHandler(waiting))
    APP.propagate = False
    listener = logging.handlers.QueueListener(waiting, logging.StreamHandler(sys.stdout))
    take()
    listener.start()
    with _request(telemetry):
        otel_shim.bind(org_id="acme")
        try:
            raise LookupError("x")
        except LookupError:
            APP.exception("failed")
    listener.stop()
    (line,) = _lines(out)
    assert line["saas.org.id"] == "acme" and line["trace_id"] != "0"
    assert line["saas.error.code"] == "LookupError"
    assert line["message"].startswith("failed")
    assert len(telemetry.records()) == 1


@pytest.mark.parametrize("how", ["same", "pickled"])
def test_record_handed_to_a_logger_again(
    how: str, take: Take, telemetry: Telemetry, out: Out
) -> None:
    """A listener that calls ``logger.handle`` neither sends a record twice nor gives it another identity."""
    out.basic()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(waiting)
    first = logging.getLogger("first")
    first.addHandler(handler)
    first.propagate = False
    take()
    with _request(telemetry):
        otel_shim.bind(org_id="acme")
        first.warning("x")
    record = waiting.get()
    if how == "pickled":
        record = pickle.loads(pickle.dumps(record))
    with _request(telemetry):
        otel_shim.bind(org_id="globex")
        logging.getLogger("second").handle(record)
    assert [r.attributes["saas.org.id"] for r in telemetry.records()] == ["acme"]
    assert [line["saas.org.id"] for line in _lines(out)] == ["acme"]


# --- errors logged outside of their request ----------------------------------------------------------


def _escaped(telemetry: Telemetry) -> tuple[Exception, int]:
    """An error that left a request, and the request's trace."""
    error = ArithmeticError("x")
    with _request(telemetry) as span:
        root = context.current_root()
        assert root is not None
        root.put(root.scope, otel_shim.Identity(request_id="r-1"))
        otel_shim.bind(org_id="acme")
        context.remember(error, root)
    return error, span.get_span_context().trace_id


def test_error_logged_outside_carries_its_request(
    take: Take, telemetry: Telemetry, out: Out
) -> None:
    """The server logs what broke after the request: with its trace, request id, endpoint and organisation."""
    out.basic()
    take()
    error, trace_id = _escaped(telemetry)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    (line,) = _lines(out)
    assert line["trace_id"] == f"{trace_id:032x}"
    assert line["saas.request.id"] == "r-1" and line["saas.org.id"] == "acme"
    assert line["http.route"] == "/orders/{id}" and line["saas.error.code"] == "ArithmeticError"
    (record,) = telemetry.records()
    assert record.trace_id == trace_id and record.attributes["saas.request.id"] == "r-1"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_error_logged_elsewhere_has_that_places_identity(
    take: Take, telemetry: Telemetry, out: Out
) -> None:
    """Inside other work the error belongs to that work."""
    out.basic()
    take()
    error, trace_id = _escaped(telemetry)
    with _request(telemetry):
        otel_shim.bind(org_id="globex")
        APP.error("again", exc_info=error)
    assert _lines(out)[0]["saas.org.id"] == "globex"
    assert telemetry.records()[0].trace_id != trace_id


def test_error_used_again_brings_nobody_along(take: Take, telemetry: Telemetry, out: Out) -> None:
    """One error object raised again and again: only the first log outside is the request's."""
    out.basic()
    take()
    error, _ = _escaped(telemetry)
    APP.error("the server's", exc_info=error)
    APP.error("a job's, later", exc_info=error)
    assert [line.get("saas.org.id") for line in _lines(out)] == ["acme", None]


def test_remembered_through_a_real_request(telemetry: Telemetry) -> None:
    """What is kept on an error is small, and is nothing of the application's."""
    error, _ = _escaped(telemetry)
    kept = context.remembered(error)
    assert kept is not None
    values = [v for v in kept.values() if not isinstance(v, trace.NonRecordingSpan)]
    assert all(isinstance(v, dict) for v in values)
    assert Trust(identity=False, trace=True) not in values


def test_a_copy_of_a_record_is_its_own(take: Take, telemetry: Telemetry, out: Out) -> None:
    """The SDK copies a record to take its context off; nothing else may be lost by that."""
    take()
    seen: list[Any] = []

    class Watcher(LogRecordProcessor):
        def on_emit(self, log_record: Any) -> None:
            seen.append(log_record.log_record)

        def shutdown(self) -> None:
            """Nothing."""

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return True

    telemetry.loggers.add_log_record_processor(Watcher())
    with telemetry.tracer().start_as_current_span("work"):
        logging.getLogger("app").warning("one", extra={"field": 1})
    (record,) = seen
    copied = copy.copy(record)
    assert vars(copied) == vars(record)
    copied.context = Context()
    assert record.context != copied.context
    assert (record.severity_text, record.severity_number) == ("WARN", SeverityNumber.WARN)


def test_another_provider_is_used_at_once(
    take: Take, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loggers are remembered for one provider only."""
    take()
    logging.getLogger("app").warning("one")
    later = record_with(IdentitySpanProcessor(), IdentityLogRecordProcessor())
    monkeypatch.setattr(_logs._internal, "_LOGGER_PROVIDER", later.loggers)
    logging.getLogger("app").warning("two")
    assert [record.body for record in telemetry.records()] == ["one"]
    assert [record.body for record in later.records()] == ["two"]
