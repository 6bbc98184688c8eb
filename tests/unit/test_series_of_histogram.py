"""otel_shim._sdk_compat.Series: the same points and exemplars as the public way, for less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import ExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricReader,
)
from opentelemetry.sdk.metrics.view import DropAggregation, View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otel_shim import _sdk_compat

LABELS: dict[str, str | int] = {"http.route": "/plans/{id}", "http.response.status_code": 200}
MORE = {"request_id": "r-1"}
VALUES = (0.0, 0.004, 0.2, 3.0, 100.0)
SAMPLED = set_span_in_context(NonRecordingSpan(SpanContext(7, 9, False, TraceFlags(1))), Context())
KEEP = View(instrument_name="h", attribute_keys=set(LABELS))


class Meter:
    """A provider with one histogram; ``ours`` records past the lookup, or the public way."""

    def __init__(self, ours: bool, *views: View, delta: bool = False) -> None:
        temporality: dict[type, AggregationTemporality] = (
            {Histogram: AggregationTemporality.DELTA} if delta else {}
        )
        self.reader = InMemoryMetricReader(preferred_temporality=temporality)
        self.provider = MeterProvider([self.reader], views=views, shutdown_on_exit=False)
        self._histogram = self.provider.get_meter("m").create_histogram("h")
        self._series = _sdk_compat.Series(self._histogram, LABELS) if ours else None

    def record(self, value: float, context: Context) -> None:
        if self._series is not None:
            self._series.record(value, MORE, context)
        else:
            self._histogram.record(value, {**LABELS, **MORE}, context=context)

    def points(self, reader: InMemoryMetricReader | None = None) -> list[Mapping[str, Any]]:
        data: Any = (reader or self.reader).get_metrics_data()
        return [
            {
                "labels": dict(point.attributes or {}),
                "count": point.count,
                "sum": point.sum,
                "least": point.min,
                "most": point.max,
                "buckets": tuple(point.bucket_counts),
                "exemplars": [
                    (e.value, e.trace_id, e.span_id, dict(e.filtered_attributes or {}))
                    for e in point.exemplars
                ],
            }
            for of in (data.resource_metrics if data else ())
            for scope in of.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


@pytest.mark.parametrize("context", [SAMPLED, Context()], ids=["sampled", "no trace"])
@pytest.mark.parametrize("delta", [False, True])
def test_same_points(context: Context, delta: bool) -> None:
    """Over several collections, cumulative or not: counts, sums, buckets, and what is on exemplars."""
    ours, public = Meter(True, KEEP, delta=delta), Meter(False, KEEP, delta=delta)
    for _ in range(3):
        for value in VALUES:
            ours.record(value, context)
            public.record(value, context)
        expected = public.points()
        assert ours.points() == expected
        assert expected[0]["labels"] == LABELS
        assert bool(expected[0]["exemplars"]) is (context is SAMPLED)


def test_a_reader_that_comes_later_gets_everything_from_then_on() -> None:
    """Readers come and go, and where they keep the series with them."""
    ours = Meter(True, KEEP)
    ours.record(1.0, SAMPLED)
    later = InMemoryMetricReader()
    ours.provider.add_metric_reader(later)
    ours.record(2.0, SAMPLED)
    ours.record(4.0, SAMPLED)
    assert ours.points()[0]["sum"] == 7.0
    assert ours.points(later)[0]["sum"] == 6.0


@pytest.mark.parametrize(
    "views",
    [
        (),
        (View(instrument_name="h", attribute_keys={"http.route"}),),
        (View(instrument_name="h", aggregation=DropAggregation()),),
        (KEEP, View(instrument_name="h", name="other", attribute_keys=set(LABELS))),
    ],
    ids=["none", "fewer labels", "dropped", "two"],
)
def test_an_operators_views_hold(views: tuple[View, ...]) -> None:
    """Whatever a view makes of the histogram, it makes of it here."""
    ours, public = Meter(True, *views), Meter(False, *views)
    for value in VALUES:
        ours.record(value, SAMPLED)
        public.record(value, SAMPLED)
    assert ours.points() == public.points()


def test_a_storage_of_another_kind_is_asked_the_public_way() -> None:
    """One that takes measurements its own way gets all of them."""
    ours = Meter(True, KEEP)
    taken: list[float] = []

    class Storage:
        @staticmethod
        def consume_measurement(measurement: Any, should_sample_exemplar: bool) -> None:
            taken.append(measurement.value)

    _sdk_compat.use_metric_storage(ours.provider, Silent(), Storage())
    for value in VALUES:
        ours.record(value, SAMPLED)
    assert taken == list(VALUES)
    assert ours.points()[0]["count"] == len(VALUES)


class Silent(MetricReader):
    """A reader that reads nothing by itself."""

    def _receive_metrics(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> None:
        pass

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


MANY = (0.004, 0.2, 0.004, 3.0, 0.003, 0.0, 100.0, 0.2, 0.21)


@pytest.mark.parametrize("context", [SAMPLED, Context()], ids=["sampled", "no trace"])
@pytest.mark.parametrize("known", [False, True], ids=["new series", "known series"])
def test_values_recorded_together(context: Context, known: bool) -> None:
    """The same points and exemplars as one after the other, whether or not the series is there."""
    together, one_by_one = Meter(ours=True), Meter(ours=True)
    for meter in (together, one_by_one):
        assert meter._series is not None
        if known:
            meter._series.record(0.1, {}, Context())
    together._series.record_all(MANY, context)  # type: ignore[union-attr]
    for value in MANY:
        one_by_one._series.record(value, {}, context)  # type: ignore[union-attr]
    (found,) = together.points()
    assert [found] == one_by_one.points()
    assert found["count"] == len(MANY) + known


class _Large(ExemplarFilter):
    """Examples are values above 1: a filter of the application's own."""

    def should_sample(
        self, value: float, time_unix_nano: int, attributes: Any, context: Context
    ) -> bool:
        return value > 1


def test_a_filter_of_examples_sees_every_value() -> None:
    """One that does not decide by the context is asked for each value."""
    meter = Meter(ours=True)
    meter.provider._measurement_consumer._sdk_config.exemplar_filter = _Large()
    meter._series.record_all(MANY, SAMPLED)  # type: ignore[union-attr]
    (point,) = meter.points()
    assert sorted(value for value, *_ in point["exemplars"]) == [3.0, 100.0]
