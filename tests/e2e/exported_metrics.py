"""Metrics that reached a listener of ``collectors``, of every kind, each export of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from . import otlp
from .collectors import Fake


@dataclass(frozen=True)
class Exported:
    """A point of a metric; a histogram's value is its count."""

    value: float
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


def of(fake: Fake, metric: str) -> Iterator[Exported]:
    """Every point of a metric so far, the newest last."""
    for path, body in list(fake.bodies):
        if path != "/v1/metrics":
            continue
        for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            resource = otlp.plain(part.resource.attributes)
            for found in (m for scope in part.scope_metrics for m in scope.metrics):
                if found.name == metric:
                    kind: Any = getattr(found, str(found.WhichOneof("data")))
                    for point in kind.data_points:
                        yield Exported(_number(point), otlp.plain(point.attributes), resource)


def _number(point: Any) -> float:
    if hasattr(point, "bucket_counts"):
        return float(point.count)
    return float(getattr(point, point.WhichOneof("value")))
