"""otel_shim.relay: what is read from alerts and backends, what is added, and what is never lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_shim.relay import alerts, exemplars, search
from otel_shim.relay.delivery import Delivery
from otel_shim.relay.lookup import Lookup
from otel_shim.relay.measures import Measures
from otel_shim.relay.memory import Memory, same_episode
from otel_shim.relay.model import Finding, Question, Remembered, Settings, Sighting
from otel_shim.relay.relaying import Relaying

Handler = Callable[[httpx.Request], httpx.Response]
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
TRACE = "0af7651916cd43dd8448eb211c80319c"
LABELS = {"alertname": "ApiServerErrors", "service": "api", "endpoint": "GET /a"}


def alert(ends_in: float = 240.0, started: datetime | None = None, **annotations: Any) -> Any:
    """An alert as Prometheus sends it; `ends_in` seconds from now, negative: resolved."""
    now = datetime.now(timezone.utc)
    return {
        "labels": dict(LABELS),
        "annotations": {"summary": "s", "relay_exemplars": "m_bucket", **annotations},
        "startsAt": (started or now).isoformat().replace("+00:00", "Z"),
        "endsAt": (now + timedelta(seconds=ends_in)).isoformat(),
        "generatorURL": "http://prometheus.example",
    }


def answer_of(*found: tuple[float, str, str]) -> Any:
    """An answer of query_exemplars with (value, trace, request)."""
    items = [
        {"labels": {"trace_id": t, "request_id": r}, "value": str(v), "timestamp": 1.0}
        for v, t, r in found
    ]
    return {"status": "success", "data": [{"seriesLabels": {}, "exemplars": items}]}


def relaying(handler: Handler, memory: Memory, **settings: Any) -> tuple[Relaying, Measures]:
    """The relay's heart over backends that answer with a handler."""
    given = {"prometheus": "http://prometheus", "traces": "http://jaeger", **settings}
    chosen = Settings(("http://am",), trace_link=None, traces_kind="jaeger", state=Path(), **given)
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    measures = Measures()
    link = "http://jaeger/trace/{trace_id}"
    return Relaying(Lookup(chosen, client, measures), memory, measures, link), measures


async def passed_on(relay: Relaying, *batch: Any) -> list[Any]:
    """What comes out for a batch."""
    body, count = await relay.prepare(json.dumps(batch).encode())
    assert count == len(batch)
    result: list[Any] = json.loads(body)
    return result


def with_exemplar(request: httpx.Request) -> httpx.Response:
    """Prometheus knows a trace."""
    return httpx.Response(200, json=answer_of((0.4, TRACE, "req-1")))


def failing(request: httpx.Request) -> httpx.Response:
    """A backend that is down."""
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T12:00:00Z", NOW.timestamp()),
        ("2026-11-22T12:00:00.5Z", NOW.timestamp() + 0.5),
        ("2026-11-22T13:00:00.123456789+01:00", NOW.timestamp() + 0.123456789),
        ("0001-01-01T00:00:00Z", -62135596800.0),
        ("yesterday", None),
        (None, None),
    ],
)
def test_times_are_read_as_go_writes_them(text: Any, expected: float | None) -> None:
    """RFC 3339 with up to nine digits and any zone."""
    assert alerts.instant(text) == pytest.approx(expected)


def test_the_fingerprint_is_of_labels_alone() -> None:
    """Neither their order nor annotations count; every label does."""
    one = alert()
    other = {**alert(x="y"), "labels": dict(reversed(LABELS.items()))}
    assert alerts.fingerprint(one) == alerts.fingerprint(other)
    assert alerts.fingerprint(one) != alerts.fingerprint({"labels": {**LABELS, "a": "b"}})


def test_an_outlier_is_not_named_first() -> None:
    """The median shows the fault that many have; the largest comes next."""
    answer = answer_of((60, "outlier", ""), *((0.3 + n / 100, f"t{n}", "") for n in range(9)))
    chosen = [sighting.trace_id for sighting in exemplars.chosen(answer, 0.2)]
    assert chosen == ["t5", "outlier", "t8"]


def test_no_exemplar_is_no_sighting() -> None:
    """An empty answer is an answer."""
    assert exemplars.chosen(answer_of(), 0.2) == ()


def test_exemplars_that_do_not_show_the_fault_are_left_out() -> None:
    """Those that do not show the fault, or lead to no trace, are left out; a tie has one answer."""
    answer = answer_of((0.1, "low", "a"), (0.3, "b", "2"), (0.3, "a", "1"), (9, "", "x"))
    assert exemplars.chosen(answer, 0.2) == (Sighting("a", "1"), Sighting("b", "2"))


def test_where_the_last_run_is_meant_the_newest_is_named_first() -> None:
    """Of exemplars, of Jaeger's and of Tempo's answers; not the longest, not a typical one."""
    items = [
        {"labels": {"trace_id": name}, "value": value, "timestamp": at}
        for name, value, at in (("old", "9", 1.5), ("new", "1", 3.5), ("middle", "5", 2.5))
    ]
    answer = {"data": [{"exemplars": items}]}
    assert [found.trace_id for found in exemplars.newest(answer)] == ["new", "middle", "old"]
    traces = [
        {"traceID": number, "spans": [{"startTime": start, "duration": took}]}
        for number, start, took in (("a", 1, 9), ("b", 2, 1))
    ]
    assert min(search.jaeger_sightings({"data": traces}, newest=True))[1].trace_id.endswith("b")
    assert min(search.jaeger_sightings({"data": traces}))[1].trace_id.endswith("a")
    tempo = {
        "traces": [
            {"traceID": "a", "startTimeUnixNano": "1", "durationMs": 9},
            {"traceID": "b", "startTimeUnixNano": "2", "durationMs": 1},
        ]
    }
    assert min(search.tempo_sightings(tempo, newest=True))[1].trace_id.endswith("b")
    assert alerts.question(alert(relay_order="newest")).newest


def test_jaeger_is_asked_for_tags_and_duration() -> None:
    """Times and durations in microseconds."""
    question = Question(service="api", tags={"error": "true"}, min_seconds=0.2, window=60)
    path, parameters = search.jaeger_request(question, 1000.0)
    assert path == "/api/traces"
    assert json.loads(parameters["tags"]) == {"error": "true"}
    assert (parameters["start"], parameters["end"]) == ("940000000", "1000000000")
    assert parameters["minDuration"] == "200000us"


def test_tempo_is_asked_in_traceql_whatever_the_values_are() -> None:
    """A quote in a value stays inside of its string; a failed span is a status."""
    question = Question(service='a"b', tags={"http.route": "/a\\b", "error": "true"})
    _, parameters = search.tempo_request(question, 1000.0)
    assert 'resource.service.name = "a\\"b"' in parameters["q"]
    assert 'span.http.route = "/a\\\\b"' in parameters["q"]
    assert "span:status = error" in parameters["q"]


def test_a_search_is_for_one_environment() -> None:
    """Of one service in production and staging; what says nothing of it cannot be asked for."""
    said = '{"service.namespace": "", "deployment.environment.name": "production"}'
    question = alerts.question(alert(relay_service="api", relay_resource=said))
    _, jaeger = search.jaeger_request(question, 1000.0)
    assert json.loads(jaeger["tags"]) == {"deployment.environment.name": "production"}
    _, tempo = search.tempo_request(question, 1000.0)
    assert 'resource.deployment.environment.name = "production"' in tempo["q"]
    assert "namespace" not in tempo["q"]


def test_tempo_answers_without_leading_zeros() -> None:
    """The trace id comes out in full length, with the request it was for."""
    spans = [{"attributes": [{"key": "saas.request.id", "value": {"stringValue": "req-1"}}]}]
    answer = {"traces": [{"traceID": "af", "durationMs": 5, "spanSets": [{"spans": spans}]}]}
    assert [*search.tempo_sightings(answer)] == [(-5.0, Sighting("af".zfill(32), "req-1"))]


def test_the_memory_is_on_disk_at_once(tmp_path: Path) -> None:
    """A second reader sees what the first, still open, has kept."""
    kept = Remembered(Finding((Sighting(TRACE, "r"),), "exemplars"), 5.0, None)
    writer = Memory(tmp_path / "state")
    writer.keep([("f", kept)])
    reader = Memory(tmp_path / "state")
    assert reader.recall("f") == kept
    reader.forget(time.time())
    assert writer.recall("f") is None
    writer.close()
    reader.close()


@pytest.mark.parametrize(
    ("resolved_at", "starts_at", "same"),
    [(None, 90.0, True), (None, None, True), (100.0, 90.0, True), (100.0, 101.0, False)],
)
def test_an_alert_that_comes_again_is_another(
    resolved_at: float | None, starts_at: float | None, same: bool
) -> None:
    """Ids of an episode that is over are not given to the next one."""
    remembered = Remembered(Finding(), 100.0, resolved_at)
    assert same_episode(remembered, starts_at) is same
    assert not same_episode(Remembered(Finding(), 0.0, None), 1e9)


async def test_ids_are_added_and_nothing_else_is_touched() -> None:
    """Labels, times and unknown members stay; instructions for the relay are taken out."""
    memory = Memory(None)
    relay, _ = relaying(with_exemplar, memory)
    sent = {**alert(), "unknown": {"deep": [1]}}
    (came,) = await passed_on(relay, sent)
    assert {k: v for k, v in came.items() if k != "annotations"} == {
        k: v for k, v in sent.items() if k != "annotations"
    }
    assert came["annotations"] == {
        "summary": "s",
        "trace_id": TRACE,
        "request_id": "req-1",
        "trace_source": "exemplars",
        "trace_url": f"http://jaeger/trace/{TRACE}",
    }
    memory.close()


async def test_the_first_ids_stay_until_the_alert_has_resolved() -> None:
    """A re-send and the resolved message carry what was said first, without asking again."""
    memory = Memory(None)
    first, _ = relaying(with_exemplar, memory)
    started = datetime.now(timezone.utc) - timedelta(seconds=10)
    await passed_on(first, alert(started=started))
    later, _ = relaying(failing, memory)
    for ends_in in (240.0, -1.0, -1.0):
        (came,) = await passed_on(later, alert(ends_in, started))
        assert came["annotations"]["trace_id"] == TRACE
    (again,) = await passed_on(later, alert(started=started + timedelta(seconds=60)))
    assert again["annotations"]["trace_id"].startswith("none: ")
    memory.close()


async def test_a_search_follows_where_no_exemplar_is() -> None:
    """Prometheus has none, Jaeger has a trace."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "prometheus":
            return httpx.Response(200, json=answer_of())
        spans = [{"duration": 5, "tags": [{"key": "saas.request.id", "value": "req-9"}]}]
        return httpx.Response(200, json={"data": [{"traceID": "af", "spans": spans}]})

    memory = Memory(None)
    relay, _ = relaying(handler, memory)
    (came,) = await passed_on(relay, alert(relay_service="api"))
    assert came["annotations"]["trace_id"] == "af".zfill(32)
    assert came["annotations"]["request_id"] == "req-9"
    assert came["annotations"]["trace_source"] == "jaeger"
    memory.close()


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({"relay_no_trace": "a gauge has no trace"}, "none: a gauge has no trace"),
        ({"relay_exemplars": ""}, "none: the rule names no source of traces"),
        ({"relay_above": "fast"}, "none: the rule's relay_* annotations: "),
        ({}, "none: Prometheus: ConnectError"),
    ],
)
async def test_it_says_why_there_is_none(annotations: dict[str, Any], reason: str) -> None:
    """Never an empty field."""
    memory = Memory(None)
    relay, _ = relaying(failing, memory)
    (came,) = await passed_on(relay, alert(**annotations))
    assert came["annotations"]["trace_id"].startswith(reason)
    assert came["annotations"]["request_id"].startswith(reason)
    memory.close()


async def test_a_resolved_alert_that_nobody_saw_fire_says_so() -> None:
    """No trace is guessed for it."""
    memory = Memory(None)
    relay, _ = relaying(with_exemplar, memory)
    (came,) = await passed_on(relay, alert(-1.0))
    assert came["annotations"]["trace_id"].startswith("none: the relay has no record")
    memory.close()


@pytest.mark.parametrize("body", [b"not json", b"{}", b"[1]", b'[{"labels": null}]', b"[{}]"])
async def test_what_it_cannot_read_goes_on_as_it_came(body: bytes) -> None:
    """Alertmanager is the one to refuse it."""
    memory = Memory(None)
    relay, measures = relaying(with_exemplar, memory)
    assert (await relay.prepare(body))[0] == body
    assert "otel_shim_relay_errors_total 1" in measures.text()
    memory.close()


async def test_a_silent_backend_holds_the_first_batch_only() -> None:
    """After the budget alerts go on; while the backend rests nobody asks it."""
    asked = 0

    async def hang(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(3600)
        raise AssertionError

    client = httpx.AsyncClient(transport=httpx.MockTransport(hang))
    chosen = Settings(("x",), "http://p", None, "jaeger", None, Path(), budget=0.01)
    lookup = Lookup(chosen, client, Measures())
    (found,) = await lookup.find([Question(exemplars="m")])
    assert found == Finding(reason="no answer within 0.01 s")
    assert asked == 1


async def test_a_backend_that_failed_is_left_alone() -> None:
    """The second question is not sent."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(500)

    memory = Memory(None)
    relay, _ = relaying(handler, memory, traces=None)
    await passed_on(relay, alert())
    (came,) = await passed_on(relay, alert(started=datetime.now(timezone.utc)))
    assert asked == ["/api/v1/query_exemplars"]
    assert came["annotations"]["trace_id"] == "none: exemplars does not answer"
    memory.close()


async def test_every_alertmanager_gets_everything_and_one_is_enough() -> None:
    """One is down: the batch is accepted, and the others have it."""
    got: list[tuple[str, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "down":
            raise httpx.ConnectError("refused", request=request)
        got.append((request.url.host, request.content))
        return httpx.Response(200)

    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    measures = Measures()
    delivery = Delivery(["http://down", "http://a", "http://b"], client, measures, 1.0)
    delivery.start()
    assert await delivery.deliver(b"[]", 2)
    await delivery.stop(5.0)
    assert sorted(got) == [("a", b"[]"), ("b", b"[]")]
    assert 'alerts_delivered_total{alertmanager="http://a"} 2' in measures.text()
    assert 'alerts_refused_total{alertmanager="http://down"} 2' in measures.text()


async def test_when_all_refuse_prometheus_is_told() -> None:
    """So that it sends them again."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    delivery = Delivery(["http://a", "http://b"], client, Measures(), 1.0)
    delivery.start()
    assert not await delivery.deliver(b"[]", 1)
    await delivery.stop(5.0)
