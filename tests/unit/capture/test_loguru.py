"""loguru: each record sent once, with the person, whatever sinks the application has."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any

import loguru
import pytest
from loguru import _simple_sinks, logger
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim.capture import loguru as capture
from otel_shim.signals import logs
from tests.unit.telemetry import Telemetry

Lines = list[str]


class ToLogging(logging.Handler):
    """What docs/install.md says."""

    def emit(self, record: logging.LogRecord) -> None:
        own = vars(record)
        taken = {*own, "message", "asctime"}
        for name, value in own.pop("extra", {}).items():
            own[f"extra.{name}" if name in taken else name] = value
        logging.getLogger(record.name).handle(record)


@pytest.fixture
def lines() -> Lines:
    """What is written by a sink."""
    return []


@pytest.fixture
def install(
    telemetry: Telemetry, logging_restored: None, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> Iterator[Callable[..., None]]:
    """The shim as the distro installs it, and loguru with one sink."""
    logging.root.handlers[:] = []
    logging.root.setLevel(logging.INFO)
    kind = type(logger)
    monkeypatch.setattr(kind, "_log", vars(kind)["_log"])
    for name in capture._SINKS:
        sink = getattr(_simple_sinks, name)
        monkeypatch.setattr(sink, "write", sink.write)
    logger.remove()
    logger.add(lines.append, format="{message} {function}")

    def take(log_format: str = "json") -> None:
        capture.install(logs.take_records(log_format, "shop"), shown=log_format == "json")

    yield take
    logger.remove()
    logger.configure(patcher=None, extra={})


def _in_request(telemetry: Telemetry, work: Callable[[], Any]) -> str:
    with telemetry.tracer().start_as_current_span("GET /", kind=SpanKind.SERVER) as span:
        otel_shim.bind(org_id="acme", user_id="ada")
        work()
    return f"{span.get_span_context().trace_id:032x}"


def _sent(telemetry: Telemetry) -> list[tuple[Any, dict[str, Any]]]:
    return [(r.body, dict(r.attributes)) for r in telemetry.records()]


def test_records_are_sent_without_any_setup(
    install: Callable[..., None], telemetry: Telemetry, lines: Lines
) -> None:
    """Text, fields, code and person; the sink's line is as ever, its caller too."""
    install()

    def work() -> None:
        logger.bind(order=7, error_code="out_of_paper").error("no {}", "paper")

    _in_request(telemetry, work)
    assert lines == ["no paper work\n"]
    ((body, attributes),) = _sent(telemetry)
    assert (body, attributes["order"], attributes["saas.org.id"]) == ("no paper", 7, "acme")
    assert attributes["saas.error.code"] == "out_of_paper" and attributes["user.hash"]
    (record,) = telemetry.records()
    assert record.logger == __name__
    assert not {"trace_id", "span_id", "error_code"} & attributes.keys()


def test_extra_says_who(install: Callable[..., None], telemetry: Telemetry, lines: Lines) -> None:
    """For sinks that write it, as those that serialise; what the application says itself wins."""
    install()
    logger.remove()
    logger.add(lines.append, serialize=True)
    log = logger.bind(**{"saas.plan": "mine"})
    trace_id = _in_request(telemetry, lambda: log.info("listed"))
    extra = json.loads(lines[0])["record"]["extra"]
    assert (extra["trace_id"], extra["saas.org.id"]) == (trace_id, "acme")
    assert extra["saas.plan"] == "mine"
    logger.info("outside")
    assert json.loads(lines[1])["record"]["extra"] == {}


def test_formats_stay_in_text_mode(
    install: Callable[..., None], telemetry: Telemetry, lines: Lines
) -> None:
    """Nothing is added to ``extra``; what is sent is the same."""
    install("text")
    logger.remove()
    logger.add(lines.append, format="{message} {extra}")
    _in_request(telemetry, lambda: logger.info("listed"))
    assert lines == ["listed {}\n"]
    assert [attributes["saas.org.id"] for _, attributes in _sent(telemetry)] == ["acme"]


def test_exceptions(install: Callable[..., None], telemetry: Telemetry) -> None:
    """Its class is the code."""
    install()

    def work() -> None:
        try:
            raise LookupError("no such order")
        except LookupError:
            logger.exception("failed")

    _in_request(telemetry, work)
    ((_, attributes),) = _sent(telemetry)
    assert attributes["saas.error.code"] == attributes["exception.type"] == "LookupError"
    assert "no such order" in attributes["exception.stacktrace"]


def _to_root(message: Any) -> None:
    logging.getLogger("by.function").log(message.record["level"].no, message.record["message"])


@pytest.mark.parametrize("enqueue", [False, True])
def test_records_handed_on_to_logging_are_sent_once(
    enqueue: bool, install: Callable[..., None], telemetry: Telemetry
) -> None:
    """By a handler, in this thread or another: it is from ``logging`` that they are taken."""
    install()
    logger.remove()
    logger.add(ToLogging(), format="{message}", enqueue=enqueue)
    logger.add(lambda _: None)
    logger.bind(order=7).info("listed")
    logger.complete()
    logger.remove()
    ((body, attributes),) = _sent(telemetry)
    assert (body, attributes["order"]) == ("listed", 7)


def test_a_function_that_hands_on_is_noticed(
    install: Callable[..., None], telemetry: Telemetry
) -> None:
    """What else is logged while a sink writes counts for itself."""
    install()

    def ships(_: Any) -> None:
        logging.getLogger("http.client").info("shipped")

    logger.add(_to_root)
    logger.info("listed")
    assert [body for body, _ in _sent(telemetry)] == ["listed"]
    logger.remove()
    logger.add(ships)
    logger.info("listed again")
    assert [body for body, _ in _sent(telemetry)] == ["listed", "shipped", "listed again"]


@pytest.mark.parametrize("enqueue", [False, True])
async def test_a_coroutine_that_hands_on_sends_nothing_twice(
    enqueue: bool, install: Callable[..., None], telemetry: Telemetry
) -> None:
    """It runs when the call is over, and its record was sent by then; what else its task says counts."""

    async def ships(message: Any) -> None:
        await asyncio.sleep(0)
        _to_root(message)
        logging.getLogger("http.client").info("shipped")

    install()
    logger.add(ships, enqueue=enqueue, loop=asyncio.get_running_loop() if enqueue else None)
    logger.bind(order=7).info("listed")
    logger.info("")
    await logger.complete()
    sent = _sent(telemetry)
    assert sorted(body for body, _ in sent) == ["", "", "listed", "shipped", "shipped"]
    assert [attributes["order"] for body, attributes in sent if body == "listed"] == [7]


def test_a_function_that_hands_on_in_the_thread_of_a_queue(
    install: Callable[..., None], telemetry: Telemetry
) -> None:
    """It is not sent again; where a handler hands on too, it is sent from ``logging`` as often as it comes."""
    install()
    logger.add(_to_root, enqueue=True)
    logger.info("listed")
    logger.complete()
    assert [body for body, _ in _sent(telemetry)] == ["listed"]
    logger.add(ToLogging(), format="{message}")
    logger.info("again")
    logger.complete()
    assert [body for body, _ in _sent(telemetry)] == ["listed", "again", "again"]


def test_two_sinks_that_hand_on_are_one_record(
    install: Callable[..., None], telemetry: Telemetry
) -> None:
    """And what a task says that one of them started is not taken for it ever after."""
    later: list[Context] = []

    def starts_a_task(message: Any) -> None:
        _to_root(message)
        later.append(copy_context())

    install()
    logger.remove()
    logger.add(_to_root)
    logger.add(starts_a_task)
    logger.info("listed")
    assert [body for body, _ in _sent(telemetry)] == ["listed"]
    later[0].run(logging.getLogger("worker").info, "listed by the worker")
    assert [body for body, _ in _sent(telemetry)] == ["listed", "listed by the worker"]


TAKEN = {name: name.upper() for name in vars(logging.makeLogRecord({}))} | {
    "message": "m",
    "asctime": "a",
}
"""Fields whose names every record of ``logging`` has for something else."""


def test_no_name_of_a_field_is_taken(install: Callable[..., None], telemetry: Telemetry) -> None:
    """As ``module`` or ``process``: all arrive under their names, and the record is what it was."""
    install()
    logger.bind(**TAKEN).info("listed")
    ((body, attributes),) = _sent(telemetry)
    assert body == "listed" and TAKEN.items() <= attributes.items()
    (record,) = telemetry.records()
    assert (record.logger, record.severity) == (__name__, "INFO")


def test_no_name_of_a_field_is_taken_where_a_handler_hands_on(
    install: Callable[..., None], telemetry: Telemetry
) -> None:
    """What a record has already, the handler of docs/install.md puts beside it."""
    install()
    logger.remove()
    logger.add(ToLogging(), format="{message}")
    logger.bind(**TAKEN, order=7).info("listed")
    ((body, attributes),) = _sent(telemetry)
    expected = {f"extra.{name}": value for name, value in TAKEN.items()} | {"order": 7}
    assert body == "listed" and expected.items() <= attributes.items()


def test_patchers_of_the_application_come_first(
    install: Callable[..., None], telemetry: Telemetry
) -> None:
    """What they mask is masked in what is sent."""

    def mask(record: Any) -> None:
        record["extra"]["card"] = "***"

    install()
    logger.configure(patcher=mask)
    logger.bind(card="4111").info("paid")
    logger.configure(patcher=lambda _: None)
    logger.patch(mask).info("paid", card="4111")
    assert [attributes["card"] for _, attributes in _sent(telemetry)] == ["***", "***"]


def test_what_no_sink_wants_is_not_sent(install: Callable[..., None], telemetry: Telemetry) -> None:
    """Levels and switched-off modules hold; errors of the application's own making pass unchanged."""
    install()
    logger.remove()
    logger.info("nobody")
    logger.add(sys.stderr, level="WARNING")
    logger.info("quiet")
    with pytest.raises(ValueError, match="does not exist"):
        logger.log("NONE", "wrong")
    logger.disable(__name__)
    logger.error("disabled")
    logger.enable(__name__)
    assert _sent(telemetry) == []


def test_an_unknown_loguru_is_left_alone(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is said what to do."""

    def log(self: Any, *args: Any) -> None: ...

    monkeypatch.setattr(type(loguru.logger), "_log", log)
    install()
    assert type(loguru.logger)._log is log  # type: ignore[attr-defined]
    assert "hand its records on" in caplog.text
