"""otel_shim.signals.connectors: what is recorded of calls to partners."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_shim import _semconv as semconv
from otel_shim.signals.connectors import Recorder
from tests.unit.telemetry import Telemetry


def _of_hosts(reader: InMemoryMetricReader) -> dict[str, dict[str, Any]]:
    """Each metric's points by their host."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: {
            str((point.attributes or {})["server.address"]): point
            for point in metric.data.data_points
        }
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_hosts_are_limited(telemetry: Telemetry) -> None:
    """Customers bring their own servers: 200 are named, the others are one; no call is lost."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    recorder = Recorder(telemetry.tracers, provider)
    for number in (*range(250), 0):
        recorder.over(f"{number}.example", True)
        recorder.waits(f"{number}.example", 2.0, "503")
    found = _of_hosts(reader)
    calls = found[semconv.METRIC_SAAS_CONNECTOR_CALLS]
    waits = found[semconv.METRIC_SAAS_CONNECTOR_WAIT_DURATION]
    assert len(calls) == len(waits) == 201
    assert (calls["0.example"].value, calls["_OTHER"].value) == (2, 50)
    assert (waits["0.example"].count, waits["_OTHER"].count) == (2, 50)
    provider.shutdown()
