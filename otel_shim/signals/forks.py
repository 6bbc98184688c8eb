"""A forked process counts for itself, and exports over connections of its own.

Pools of workers fork while their parent counts, collects and exports. A connection of the parent that its
child goes on using carries the bytes of both, mixed: what arrives cannot be read.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

from opentelemetry import _logs, metrics, trace
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


_inherited: list[Any] = []
"""Connections of the parent: closing them might wait for a lock that a thread of the parent held."""


def export_for_itself() -> None:
    """Let each process that is forked from now on connect anew to where telemetry goes."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_connect_anew)


@guarded(default=None)
def _connect_anew() -> None:
    providers = (
        trace.get_tracer_provider(),
        _logs.get_logger_provider(),
        metrics.get_meter_provider(),
    )
    for session in _sdk_compat.export_sessions(*providers):
        _inherited.append((dict(session.adapters), session.cookies))
        _sdk_compat.renew_session(session)
