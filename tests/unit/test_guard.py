"""otel_shim._guard: a fault of ours is counted and said once; the application's errors are not ours."""

from __future__ import annotations

import logging

import pytest

from otel_shim import counters
from otel_shim._guard import guarded


@guarded(default="fallback")
def _broken() -> str:
    raise RuntimeError("ours")


@guarded(default=None)
def _interrupted() -> None:
    raise KeyboardInterrupt


def test_fault_gives_the_default_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each fault is counted; the first one of a function is logged with its traceback."""
    with caplog.at_level(logging.WARNING, "otel_shim"):
        assert [_broken(), _broken()] == ["fallback", "fallback"]
    assert counters.snapshot() == {"internal_errors": 2}
    assert len(caplog.records) == 1
    assert "_broken" in caplog.text and "RuntimeError: ours" in caplog.text


def test_exits_pass() -> None:
    """Only an ``Exception`` is a fault: an interrupt or cancellation passes."""
    with pytest.raises(KeyboardInterrupt):
        _interrupted()
    assert counters.snapshot() == {}
