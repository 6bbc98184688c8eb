"""otel_shim.relay: a look-up ends in time, and one backend or question in trouble is not all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest

from otel_shim.relay.lookup import Lookup
from otel_shim.relay.measures import Measures
from otel_shim.relay.model import Finding, Question
from tests.unit.relay_messages import TRACE, answer_of, settings

Handler = Callable[[httpx.Request], Coroutine[Any, Any, httpx.Response]]
BUDGET = 0.2


def looking(handler: Handler, **given: Any) -> tuple[Lookup, Measures]:
    """A look-up in backends that answer with a handler."""
    measures = Measures()
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return Lookup(settings(**given), client, measures), measures


def failures(measures: Measures, why: str, backend: str = "exemplars") -> int:
    """How many look-ups of a backend failed so."""
    line = f'lookup_failures_total{{backend="{backend}",reason="{why}"}} '
    return int(measures.text().split(line)[1].split("\n")[0])


def questions(count: int) -> list[Question]:
    """Different ones."""
    return [Question(exemplars=f"m{number}") for number in range(count)]


def found(findings: list[Finding]) -> list[bool]:
    """Which have a trace."""
    return [bool(finding.sightings) for finding in findings]


async def hang(request: httpx.Request) -> httpx.Response:
    """Take a question and never answer."""
    await asyncio.sleep(3600)
    raise AssertionError


async def trickle(request: httpx.Request) -> httpx.Response:
    """An answer that never ends, each part of it in time."""

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(BUDGET / 10)

    return httpx.Response(200, content=parts())


@pytest.mark.parametrize("handler", [hang, trickle])
async def test_a_silent_backend_holds_the_first_batch_only(handler: Handler) -> None:
    """After the budget alerts go on; while the backend rests nobody asks it."""
    asked = 0

    async def counting(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return await handler(request)

    lookup, measures = looking(counting)
    first = await asyncio.wait_for(lookup.find(questions(40), BUDGET), 10 * BUDGET)
    at_first = asked
    assert 16 <= at_first <= 18  # three failures, and the others wait no more
    assert first[0].reason == "exemplars: no answer within 0.2 s"
    assert all(finding.may_be_found and not finding.sightings for finding in first)
    second = await lookup.find(questions(40), BUDGET)
    assert asked == at_first
    assert {finding.reason for finding in second} == {"exemplars does not answer"}
    assert failures(measures, "late") == at_first
    assert failures(measures, "unavailable") == 0


async def test_both_silent_are_one_budget_and_both_are_counted() -> None:
    """The second one is asked with what time is left."""
    lookup, measures = looking(hang)
    asked = [Question(exemplars=f"m{n}", service="api") for n in range(3)]
    began = time.monotonic()
    answers = await lookup.find(asked, BUDGET)
    assert time.monotonic() - began < 5 * BUDGET  # a bound, not a measurement
    assert failures(measures, "late") == failures(measures, "late", "jaeger") == 3
    assert "jaeger: no answer within" in answers[0].reason
    (again,) = await lookup.find([asked[0]], BUDGET)
    assert again.reason == "exemplars does not answer; jaeger does not answer"


async def test_more_questions_than_time_are_counted_and_rest_nobody() -> None:
    """The backend answers, one after the other; those that were not asked in time say so."""

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(BUDGET * 0.6)
        return httpx.Response(200, json=answer_of((0.4, TRACE, "r")))

    lookup, measures = looking(slow)
    first = await lookup.find(questions(40), BUDGET)
    assert found(first) == [True] * 16 + [False] * 24
    assert failures(measures, "late") + failures(measures, "unasked") == 24
    assert failures(measures, "unasked") >= 8
    assert found(await lookup.find(questions(1), 5.0)) == [True]


async def test_one_slow_question_rests_nobody() -> None:
    """The next one is asked and answered."""

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.params["query"] == "m0":
            return await hang(request)
        return httpx.Response(200, json=answer_of((0.4, TRACE, "r")))

    lookup, measures = looking(handler)
    assert found(await lookup.find(questions(3), BUDGET)) == [False, True, True]
    assert found(await lookup.find(questions(1), BUDGET)) == [False]
    assert found(await lookup.find(questions(2)[1:], BUDGET)) == [True]
    assert failures(measures, "late") == 2


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refused_question_blinds_no_other(status: int) -> None:
    """However often it is asked: it is about the question, and the answer says what."""

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.params["query"] == "m0":
            return httpx.Response(status, json={"error": 'parse error:\n unexpected "'})
        return httpx.Response(200, json=answer_of((0.4, TRACE, "r")))

    lookup, measures = looking(handler)
    for _ in range(5):
        bad, good = await lookup.find(questions(2), BUDGET)
        assert good.sightings
        assert bad.reason.startswith(f"Prometheus refused the question: {status} ")
        assert "parse error" in bad.reason and "\n" not in bad.reason
        assert not bad.may_be_found
    assert failures(measures, "refused") == 5
    assert failures(measures, "unavailable") == 0


async def test_after_a_rest_one_question_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have their reason at once, so that one alert waits for a dead backend and not all."""
    monkeypatch.setattr("otel_shim.relay.backend._FAILURES", 1)
    lookup, measures = looking(hang, pause=0.0)
    await lookup.find(questions(1), BUDGET)
    answers = await lookup.find(questions(40), BUDGET)
    assert failures(measures, "late") == 2
    assert failures(measures, "unasked") == 0
    reasons = [answer.reason for answer in answers]
    assert reasons[1:] == ["exemplars does not answer"] * 39
    assert reasons[0] == "exemplars: no answer within 0.2 s"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_backend_that_fails_is_left_alone_for_longer_and_longer(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third failure on: a second, two, four; one answer ends it."""
    now = 1000.0
    monkeypatch.setattr("otel_shim.relay.backend.time.monotonic", lambda: now)
    asked = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(status if now < 1010 else 200, json=answer_of((0.4, TRACE, "r")))

    lookup, measures = looking(handler)
    asked_at = []
    for step in range(30):
        now, before = 1000.0 + step * 0.5, asked
        await lookup.find(questions(1), 1.0)
        if asked > before:
            asked_at.append(now - 1000)
    assert asked_at == [0, 0.5, 1, 2, 4, 8]
    now = 1016.0
    assert found(await lookup.find(questions(2), 1.0)) == [True, True]
    assert asked == 8
    assert failures(measures, "unavailable") == 6


async def test_questions_that_are_the_same_are_asked_once() -> None:
    """Each alert has the answer."""
    asked = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200, json=answer_of((0.4, TRACE, "r")))

    lookup, _ = looking(handler)
    assert found(await lookup.find(questions(1) * 5, 5.0)) == [True] * 5
    assert asked == 1


async def test_a_window_is_no_longer_than_the_backend_allows() -> None:
    """Tempo refuses more than 168 hours; the reason names the window that was searched."""
    spans: list[float] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        spans.append(int(request.url.params["end"]) - int(request.url.params["start"]))
        return httpx.Response(200, json={"traces": []})

    lookup, _ = looking(handler, traces_kind="tempo", prometheus=None)
    (answer,) = await lookup.find([Question(service="api", window=8 * 24 * 3600)], 5.0)
    assert 167 * 3600 < spans[0] <= 168 * 3600
    assert answer.reason == "tempo has none in 604740 s"
