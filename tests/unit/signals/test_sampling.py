"""otel_shim.signals.sampling: a span has the attributes that it was started with, whatever the sampler."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace._sampling_experimental import (
    composable_always_off,
    composable_always_on,
    composite_sampler,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from otel_shim.signals import sampling


def _started(sampler: Sampler) -> list[dict[str, Any] | None]:
    """What a span and its child hold when they have just been started with an attribute."""
    provider = TracerProvider(sampler=sampler)
    sampling.keep_attributes(provider)
    tracer = provider.get_tracer("app")
    found: list[dict[str, Any] | None] = []
    with tracer.start_as_current_span("outer", attributes={"order": 7}) as outer:
        inner = tracer.start_span("inner", attributes={"order": 7})
        for span in (outer, inner):
            attributes = getattr(span, "attributes", None)
            found.append(None if attributes is None else dict(attributes))
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda: composite_sampler(composable_always_on()),
        lambda: ParentBased(composite_sampler(composable_always_on())),
        lambda: TraceIdRatioBased(1.0),
    ],
)
def test_attributes_are_kept(make: Any) -> None:
    """By the SDK's composite sampler too, which returns none, and where it decides about roots only."""
    assert _started(make()) == [{"order": 7}, {"order": 7}]


def test_what_is_not_sampled_stays_so() -> None:
    """A decision is never changed."""
    assert _started(composite_sampler(composable_always_off())) == [None, None]


def test_the_sampler_is_still_the_same_object() -> None:
    """A distro that looks for its own sampler finds it; the standard ones are not touched."""
    own = composite_sampler(composable_always_on())
    for sampler in (own, ALWAYS_ON):
        provider = TracerProvider(sampler=sampler)
        sampling.keep_attributes(provider)
        sampling.keep_attributes(provider)
        assert provider.sampler is sampler
    assert "should_sample" in vars(own) and "should_sample" not in vars(ALWAYS_ON)
