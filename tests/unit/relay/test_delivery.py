"""otel_shim.relay: every Alertmanager gets every alert."""

from __future__ import annotations

import httpx
import pytest

from otel_shim.relay.delivery import Delivery
from otel_shim.relay.measures import Measures


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


async def test_a_password_in_an_address_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    """It is sent, and neither logged nor a label."""
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(500)

    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    measures = Measures()
    delivery = Delivery(["http://user:s3cret@a/team"], client, measures, 1.0)
    delivery.start()
    assert not await delivery.deliver(b"[]", 1)
    await delivery.stop(5.0)
    assert asked[0].headers["authorization"].startswith("Basic ")
    assert 'alerts_refused_total{alertmanager="http://a/team"} 1' in measures.text()
    logged = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert logged == ["http://a/team refused alerts: 500"]


async def test_when_all_refuse_prometheus_is_told() -> None:
    """So that it sends them again."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    delivery = Delivery(["http://a", "http://b"], client, Measures(), 1.0)
    delivery.start()
    assert not await delivery.deliver(b"[]", 1)
    await delivery.stop(5.0)
