"""otel_shim.capture.retries: what tenacity does to a call that asks a partner, however it is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from otel_shim import counters
from otel_shim.capture.retries import RetriesInstrumentor
from otel_shim.signals import connectors
from tests.unit.telemetry import Telemetry

NAME = "HTTP call with retries"
POLICY: dict[str, Any] = {"stop": tenacity.stop_after_attempt(4), "wait": tenacity.wait_none()}


class Unavailable(Exception):
    """The partner says no."""


@pytest.fixture(autouse=True)
def _instrumented(telemetry: Telemetry) -> Iterator[None]:
    instrumentor = RetriesInstrumentor()
    instrumentor.instrument(
        tracer_provider=telemetry.tracers, meter_provider=MeterProvider(shutdown_on_exit=False)
    )
    yield
    instrumentor.uninstrument()


@pytest.fixture
def ask(telemetry: Telemetry) -> Callable[[str], None]:
    """Asks a partner: fails so often as its path says."""
    asked: dict[str, int] = {}

    def once(path: str) -> None:
        asked[path] = asked.get(path, 0) + 1
        attributes = {
            "http.request.method": "GET",
            "server.address": "partner",
            "url.full": f"http://partner/{path}",
        }
        with telemetry.tracer().start_as_current_span(
            "GET", kind=SpanKind.CLIENT, attributes=attributes, set_status_on_exception=False
        ) as span:
            if asked[path] <= int(path):
                span.set_attribute("error.type", "503")
                span.set_status(Status(StatusCode.ERROR))
                raise Unavailable

    return once


def _logical(telemetry: Telemetry) -> list[ReadableSpan]:
    return [span for span in telemetry.spans() if span.name == NAME]


def _said(span: ReadableSpan) -> tuple[Any, ...]:
    attributes = dict(span.attributes or {})
    return attributes["saas.connector.attempts"], attributes["saas.connector.outcome"]


def test_calls_one_after_the_other_are_told_apart(
    telemetry: Telemetry, ask: Callable[[str], None]
) -> None:
    """Each has its own attempts, and nothing is at work between them."""
    retried = tenacity.retry(**POLICY)(ask)
    for path in ("0", "1", "2"):
        retried(path)
        assert connectors.current() is None
    assert [_said(span) for span in _logical(telemetry)] == [(2, "recovered"), (3, "recovered")]


def test_calls_at_once_are_told_apart(telemetry: Telemetry, ask: Callable[[str], None]) -> None:
    """Tasks do not see each other's calls."""

    async def task(path: str) -> None:
        async for attempt in tenacity.AsyncRetrying(**POLICY):
            with attempt:
                await asyncio.sleep(0)
                ask(path)

    async def both() -> None:
        await asyncio.gather(task("2"), task("1"), task("0"))

    asyncio.run(both())
    assert sorted(_said(span) for span in _logical(telemetry)) == [
        (2, "recovered"),
        (3, "recovered"),
    ]


def test_one_inside_of_another(telemetry: Telemetry, ask: Callable[[str], None]) -> None:
    """Both are calls of their own; the outer one counts its own attempts."""
    inner = tenacity.retry(stop=tenacity.stop_after_attempt(2), reraise=True)(ask)
    tenacity.Retrying(**POLICY)(inner, "3")
    assert [_said(span) for span in _logical(telemetry)] == [
        (2, "exhausted"),
        (2, "recovered"),
        (2, "recovered"),
    ]


def test_an_error_that_is_not_tried_again_ends_it(
    telemetry: Telemetry, ask: Callable[[str], None]
) -> None:
    """At the first attempt it is no retry at all; later the call is exhausted. The error passes."""
    only = tenacity.Retrying(retry=tenacity.retry_if_exception_type(Unavailable), **POLICY)
    errors = iter([Unavailable, ZeroDivisionError])

    def fails() -> None:
        with contextlib.suppress(Unavailable):
            ask("9")
        raise next(errors)

    with pytest.raises(ZeroDivisionError):
        only(fails)
    assert [_said(span) for span in _logical(telemetry)] == [(2, "exhausted")]


def test_results_that_are_tried_again(telemetry: Telemetry, ask: Callable[[str], None]) -> None:
    """A loop that sets results: attempts that ended well are not the end."""
    again = tenacity.Retrying(retry=tenacity.retry_if_result(lambda got: got < 3), **POLICY)
    for number, attempt in enumerate(again, 1):
        with attempt:
            ask("0")
        attempt.retry_state.set_result(number)
    assert [_said(span) for span in _logical(telemetry)] == [(3, "recovered")]


def test_a_worker_that_is_started_again_repeats_nothing_but_its_first(
    telemetry: Telemetry, ask: Callable[[str], None]
) -> None:
    """Requests of a long attempt are not all called repetitions, and are not all kept."""

    def worker() -> None:
        for _ in range(300):
            ask("1")

    tenacity.Retrying(**POLICY)(worker)
    spans = [span for span in telemetry.spans() if span.name == "GET"]
    resent = [(span.attributes or {}).get("http.request.resend_count") for span in spans]
    assert len(spans) == 301 and resent == [None, 1, *[None] * 299]
    (call,) = _logical(telemetry)
    assert len(call.links) < 110


def test_faults_of_ours_leave_the_application_alone(
    monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry, ask: Callable[[str], None]
) -> None:
    """They are counted, and the call ends as ever."""
    for name in ("waited", "ended"):
        monkeypatch.setattr(connectors.Recorder, name, None)
    monkeypatch.setattr(connectors.Call, "saw", None)
    tenacity.retry(**POLICY)(ask)("2")
    with pytest.raises(tenacity.RetryError):
        tenacity.retry(**POLICY)(ask)("9")
    assert counters.snapshot()["internal_errors"] > 0
    assert not _logical(telemetry)
