"""Metrics of a forked process are its own: pools of workers fork while their parent counts and collects."""

from __future__ import annotations

import os
import weakref

from opentelemetry.sdk.metrics import MeterProvider

from otel_shim import _sdk_compat
from otel_shim._guard import guarded


def count_for_itself(meters: MeterProvider) -> None:
    """Let each process that is forked from now on begin at nothing, as a process that is started does."""
    if not hasattr(os, "register_at_fork"):
        return
    held = weakref.ref(meters)

    @guarded(default=None)
    def forked() -> None:
        if (provider := held()) is not None:
            _sdk_compat.start_metrics_afresh(provider)

    os.register_at_fork(after_in_child=forked)
