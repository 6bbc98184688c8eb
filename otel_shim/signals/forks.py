"""A forked process counts for itself, and exports over connections of its own.

Pools of workers fork while their parent counts, collects and exports. A connection of the parent that its
child goes on using carries the bytes of both, mixed: what arrives cannot be read. And what a thread of the
parent holds at that moment is held in the child for ever: a module that it was importing for its first
request can never be imported there, and nothing of the child is exported. So a fork waits for a request.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider

from otel_shim import _sdk_compat, locks
from otel_shim._guard import guarded
from otel_shim.signals import export


def count_for_itself(meters: MeterProvider) -> None:
    """Let each process that is forked from now on begin at nothing, as a process that is started does."""
    held = weakref.ref(meters)

    @guarded(default=None)
    def forked() -> None:
        if (provider := held()) is not None:
            _sdk_compat.start_metrics_afresh(provider)

    locks.in_children(forked)


_PATIENCE_SECONDS = 0.1
"""Longest wait of a fork: a request to a Collector that is near takes less, and imports before it is sent."""


class _Traffic:
    """The requests under way in one process, and whether a fork keeps others from beginning."""

    def __init__(self) -> None:
        self.change = threading.Condition()
        self.under_way = 0
        self.closed = False


class Gate:
    """Keeps forks and export requests apart: a fork waits a moment for those under way, others wait for it.

    ``hurry`` says when a fork is not to wait: with a Collector that is away, requests are always under way,
    and all that they import has been imported.
    """

    def __init__(self, hurry: Callable[[], bool]) -> None:
        self._hurry = hurry
        self._traffic = _Traffic()

    def guard(self, request: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what sends a request."""

        @functools.wraps(request)
        def guarded_request(*args: Any, **kwargs: Any) -> Any:
            traffic = self._traffic
            with traffic.change:
                traffic.change.wait_for(lambda: not traffic.closed)
                traffic.under_way += 1
            try:
                return request(*args, **kwargs)
            finally:
                with traffic.change:
                    traffic.under_way -= 1
                    traffic.change.notify_all()

        return guarded_request

    def close(self) -> None:
        """Let nothing begin until ``open``, and wait for what is under way; runs before a fork."""
        traffic = self._traffic
        traffic.change.acquire()
        traffic.closed = True
        if not self._hurry():
            traffic.change.wait_for(lambda: not traffic.under_way, _PATIENCE_SECONDS)

    def open(self) -> None:
        """Let requests go on; runs in the parent after a fork."""
        traffic = self._traffic
        traffic.closed = False
        traffic.change.notify_all()
        traffic.change.release()

    def renew(self) -> None:
        """Begin anew in a forked process; threads that it has started already may wait for what was before."""
        before, self._traffic = self._traffic, _Traffic()
        before.closed = False
        before.change.release()


_gate = Gate(export.is_failing)
_inherited: list[Any] = []
"""Connections of the parent: closing them might wait for a lock that a thread of the parent held."""


def export_for_itself() -> None:
    """Let each process that is forked from now on connect anew to where telemetry goes."""
    if not hasattr(os, "register_at_fork"):
        return
    for session in _sessions():
        session.request = _gate.guard(session.request)
    os.register_at_fork(
        before=_gate.close, after_in_parent=_gate.open, after_in_child=_connect_anew
    )


def _sessions() -> Iterator[Any]:
    """The sessions over which telemetry is exported."""
    return _sdk_compat.export_sessions(*export.providers())


@guarded(default=None)
def _connect_anew() -> None:
    _gate.renew()
    for session in _sessions():
        _inherited.append((dict(session.adapters), session.cookies))
        _sdk_compat.renew_session(session)
