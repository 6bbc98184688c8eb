"""otel_shim.relay: what is read from alerts, what is added to them, and what is remembered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from otel_shim.relay import alerts, exemplars
from otel_shim.relay.memory import Memory
from otel_shim.relay.model import Finding, Remembered, Sighting
from otel_shim.relay.relaying import Prepared
from otel_shim.relay.second_look import SecondLook
from tests.unit.relay_messages import (
    LABELS,
    TRACE,
    alert,
    answer_of,
    failing,
    passed_on,
    relaying,
    with_exemplar,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


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


async def test_ids_are_added_and_nothing_else_is_touched(memory: Memory) -> None:
    """Labels, times and unknown members stay; instructions for the relay are taken out."""
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


async def test_the_first_ids_stay_until_the_alert_has_resolved(memory: Memory) -> None:
    """A re-send and the resolved message carry what was said first, without asking again."""
    first, _ = relaying(with_exemplar, memory)
    started = datetime.now(timezone.utc) - timedelta(seconds=10)
    await passed_on(first, alert(started=started))
    later, _ = relaying(failing, memory)
    for ends_in in (240.0, -1.0, -1.0):
        (came,) = await passed_on(later, alert(ends_in, started))
        assert came["annotations"]["trace_id"] == TRACE
    (again,) = await passed_on(later, alert(started=started + timedelta(seconds=60)))
    assert again["annotations"]["trace_id"].startswith("none: ")


async def test_a_search_follows_where_no_exemplar_is(memory: Memory) -> None:
    """Prometheus has none, Jaeger has a trace."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "prometheus":
            return httpx.Response(200, json=answer_of())
        spans = [{"duration": 5, "tags": [{"key": "saas.request.id", "value": "req-9"}]}]
        return httpx.Response(200, json={"data": [{"traceID": "af", "spans": spans}]})

    relay, _ = relaying(handler, memory)
    (came,) = await passed_on(relay, alert(relay_service="api"))
    assert came["annotations"]["trace_id"] == "af".zfill(32)
    assert came["annotations"]["request_id"] == "req-9"
    assert came["annotations"]["trace_source"] == "jaeger"


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({"relay_no_trace": "a gauge has no trace"}, "none: a gauge has no trace"),
        ({"relay_exemplars": ""}, "none: the rule names no source of traces"),
        ({"relay_above": "fast"}, "none: the rule's relay_* annotations: "),
        ({}, "none: Prometheus: ConnectError"),
    ],
)
async def test_it_says_why_there_is_none(
    memory: Memory, annotations: dict[str, Any], reason: str
) -> None:
    """Never an empty field."""
    relay, _ = relaying(failing, memory)
    (came,) = await passed_on(relay, alert(**annotations))
    assert came["annotations"]["trace_id"].startswith(reason)
    assert came["annotations"]["request_id"].startswith(reason)


async def test_a_resolved_alert_that_nobody_saw_fire_says_so(memory: Memory) -> None:
    """No trace is guessed for it."""
    relay, _ = relaying(with_exemplar, memory)
    (came,) = await passed_on(relay, alert(-1.0))
    assert came["annotations"]["trace_id"].startswith("none: the relay has no record")


@pytest.mark.parametrize("body", [b"not json", b"{}", b"[1]", b'[{"labels": null}]', b"[{}]"])
async def test_what_it_cannot_read_goes_on_as_it_came(memory: Memory, body: bytes) -> None:
    """Alertmanager is the one to refuse it."""
    relay, measures = relaying(with_exemplar, memory)
    assert (await relay.prepare(body)).body == body
    assert "otel_shim_relay_errors_total 1" in measures.text()


@pytest.mark.parametrize(
    "unreadable", [1, {}, {"labels": []}, {"labels": LABELS, "annotations": "x"}]
)
async def test_one_that_cannot_be_read_costs_the_others_nothing(
    memory: Memory, unreadable: Any
) -> None:
    """They have their ids; it goes on as it came."""
    relay, measures = relaying(with_exemplar, memory)
    came = await passed_on(relay, alert(), unreadable, alert())
    assert [each["annotations"]["trace_id"] for each in (came[0], came[2])] == [TRACE, TRACE]
    assert came[1] == unreadable
    assert "otel_shim_relay_errors_total 1" in measures.text()


async def test_an_alert_without_annotations_has_the_reason(memory: Memory) -> None:
    """JSON's null is none, as for Alertmanager."""
    relay, _ = relaying(with_exemplar, memory)
    (came,) = await passed_on(relay, {**alert(), "annotations": None})
    assert came["annotations"]["trace_id"] == "none: the rule names no source of traces"


async def test_a_failure_inside_is_a_reason_too(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never an empty field, nor the instructions for the relay."""

    async def fails(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(exemplars, "find", fails)
    relay, measures = relaying(with_exemplar, memory)
    (came,) = await passed_on(relay, alert())
    assert came["annotations"]["trace_id"] == "none: the relay failed: ZeroDivisionError"
    assert "relay_exemplars" not in came["annotations"]
    assert "otel_shim_relay_errors_total 1" in measures.text()


async def test_a_later_fault_is_looked_up_anew(memory: Memory) -> None:
    """Nobody saw the first one resolve; Prometheus says when this one began."""
    began = datetime.now(timezone.utc) - timedelta(hours=1)
    known = Remembered(Finding((Sighting("old", "old"),), "exemplars"), began.timestamp() + 240, 0)
    memory.keep([(alerts.fingerprint(alert()), known)])
    relay, _ = relaying(with_exemplar, memory)
    (same,) = await passed_on(relay, alert(started=began))
    assert same["annotations"]["trace_id"] == "old"
    memory.keep([(alerts.fingerprint(alert()), known)])
    (later,) = await passed_on(relay, alert(started=began + timedelta(minutes=30)))
    assert (later["annotations"]["trace_id"], later["annotations"]["request_id"]) == (
        TRACE,
        "req-1",
    )


async def test_a_restarted_prometheus_does_not_change_the_ids(memory: Memory) -> None:
    """It gives what still fires a new start, before the end it gave it before the restart."""
    first, _ = relaying(with_exemplar, memory)
    started = datetime.now(timezone.utc) - timedelta(hours=2)
    await passed_on(first, alert(started=started))
    later, _ = relaying(failing, memory)
    (came,) = await passed_on(later, alert(started=datetime.now(timezone.utc)))
    assert came["annotations"]["trace_id"] == TRACE
    (ended,) = await passed_on(later, alert(-0.001, datetime.now(timezone.utc)))
    assert ended["annotations"]["trace_id"] == TRACE


async def test_what_was_not_there_in_time_follows(memory: Memory) -> None:
    """While nothing newer came of the alert; what is found is remembered."""
    down, _ = relaying(failing, memory)
    traceless = {**alert(relay_no_trace="a gauge"), "labels": {"alertname": "Other"}}
    batch = await down.prepare(json.dumps([alert(), traceless]).encode())
    assert len(batch.without) == 1
    up, _ = relaying(with_exemplar, memory)
    found = await up.again(batch.without)
    (came,) = json.loads(found.body)
    assert came["annotations"]["trace_id"] == TRACE
    (again,) = await passed_on(down, alert())
    assert again["annotations"]["trace_id"] == TRACE


async def test_a_second_look_revives_nothing(memory: Memory) -> None:
    """It has resolved meanwhile: what was found for the message before is kept back."""
    down, _ = relaying(failing, memory)
    started = datetime.now(timezone.utc) - timedelta(seconds=10)
    batch = await down.prepare(json.dumps([alert(started=started)]).encode())
    await passed_on(down, alert(-1.0, started))
    up, _ = relaying(with_exemplar, memory)
    assert (await up.again(batch.without)).alerts == 0


async def test_a_second_look_is_bounded_and_delivers_what_it_finds() -> None:
    """More than two hundred at a time are left to Prometheus's next message."""
    looked: list[int] = []
    delivered: list[Prepared] = []

    async def again(batch: Sequence[alerts.Incoming]) -> Prepared:
        looked.append(len(batch))
        return Prepared(b"[]", 0) if len(looked) > 1 else Prepared(b"[1]", 1)

    async def deliver(found: Prepared) -> bool:
        delivered.append(found)
        return True

    look = SecondLook(again, deliver, 0.0)
    incoming = alerts.incoming(alert(), time.time())
    for size in (150, 100, 50):
        look.at([incoming] * size)
    await asyncio.gather(*look._looks)
    look.at([incoming] * 200)
    await asyncio.gather(*look._looks)
    assert looked == [150, 50, 200]
    assert delivered == [Prepared(b"[1]", 1)]
