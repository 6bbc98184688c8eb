"""Samplers that lose what a span was started with.

A sampler's attributes are added to those of the span (specification, "ShouldSample"). In the SDK they take
their place, so each sampler has to return what it was given. The SDK's composite sampler, which Elastic's
distro sets, returns none: every span would be without its attributes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace import sampling as standard
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult

from otel_shim import _sdk_compat
from otel_shim._guard import guarded

_GIVEN = 4
"""The position of the attributes among the arguments of ``should_sample``."""


@guarded(default=None)
def keep_attributes(provider: TracerProvider) -> None:
    """Have a provider's sampler return the attributes that it was given, where it returns none.

    The object stays the same: a distro may look for its own, to change its ratio.
    """
    for sampler in _losing(provider.sampler):
        if "should_sample" not in vars(sampler):
            sampler.should_sample = _keeping(sampler.should_sample)


def _losing(sampler: Any) -> Iterator[Any]:
    if isinstance(sampler, standard.ParentBased):
        for delegate in _sdk_compat.delegates(sampler):
            yield from _losing(delegate)
    elif type(sampler).__module__ != standard.__name__:
        yield sampler


def _keeping(should_sample: Any) -> Any:
    @functools.wraps(should_sample)
    def decide(*args: Any, **kwargs: Any) -> SamplingResult:
        result: SamplingResult = should_sample(*args, **kwargs)
        given = kwargs.get("attributes") or (args[_GIVEN] if len(args) > _GIVEN else None)
        if not given or result.attributes or result.decision is Decision.DROP:
            return result
        return SamplingResult(result.decision, given, result.trace_state)

    return decide
