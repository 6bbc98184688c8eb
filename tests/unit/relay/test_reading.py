"""otel_shim.relay: what backends are asked, and what is read from their answers."""

from __future__ import annotations

import json

import httpx

from otel_shim.relay import alerts, exemplars, search
from otel_shim.relay.model import Question, Sighting
from tests.unit.relay_messages import alert, answer_of

NEWEST = Question(newest=True)


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
    assert min(search.jaeger_sightings({"data": traces}, NEWEST))[1].trace_id.endswith("b")
    assert min(search.jaeger_sightings({"data": traces}, Question()))[1].trace_id.endswith("a")
    tempo = {
        "traces": [
            {"traceID": "a", "startTimeUnixNano": "1", "durationMs": 9},
            {"traceID": "b", "startTimeUnixNano": "2", "durationMs": 1},
        ]
    }
    assert min(search.tempo_sightings(tempo, NEWEST))[1].trace_id.endswith("b")
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


def test_tempo_is_asked_for_a_number_and_a_text_where_it_may_be_either() -> None:
    """A status is a number, an operation called 12 is a text; neither is a line by itself."""
    tags = {"http.response.status_code": "503", "saas.operation": "a\nb"}
    _, parameters = search.tempo_request(Question(service="api", tags=tags), 1000.0)
    status = "span.http.response.status_code"
    assert f'({status} = 503 || {status} = "503")' in parameters["q"]
    assert 'span.saas.operation = "a\\nb"' in parameters["q"]


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
    assert [*search.tempo_sightings(answer, Question())] == [
        (-5.0, Sighting("af".zfill(32), "req-1"))
    ]


async def test_a_jaeger_that_knows_no_error_is_asked_without() -> None:
    """Of what it then finds, only what failed is named."""
    asked: list[dict[str, str]] = []
    route = {"key": "http.route", "value": "/a"}
    spans = {
        "a": [{"duration": 1, "tags": [route, {"key": "error", "value": True}]}],
        "b": [{"duration": 2, "tags": [route, {"key": "error", "value": False}]}],
        "c": [
            {"duration": 3, "tags": [route]},
            {"duration": 4, "tags": [{"key": "error", "value": True}]},
        ],
    }
    traces = [{"traceID": name, "spans": those} for name, those in spans.items()]

    def handler(request: httpx.Request) -> httpx.Response:
        tags = json.loads(request.url.params["tags"])
        asked.append(tags)
        return httpx.Response(200, json={"data": [] if "error" in tags else traces})

    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    question = Question(service="api", tags={"error": "true", "http.route": "/a"})
    found = await search.find(client, "jaeger", "http://jaeger", question, 1000.0)
    assert found == (Sighting("a".zfill(32)),)
    assert asked == [{"error": "true", "http.route": "/a"}, {"http.route": "/a"}]
