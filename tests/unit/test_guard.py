"""otel_shim._guard: a fault of ours is counted and said once; the application's errors are not ours."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, cast

import pytest
from billiard.exceptions import SoftTimeLimitExceeded  # type: ignore[import-untyped]
from rq.timeouts import BaseTimeoutException, JobTimeoutException

import otel_shim
from otel_shim import _guard, counters
from otel_shim._guard import described, guarded, is_time_limit
from otel_shim.capture import rq
from otel_shim.values import written


@guarded(default="fallback")
def _broken() -> str:
    raise RuntimeError("anna@example.com")


@guarded(default=None)
def _interrupted() -> None:
    raise KeyboardInterrupt


def test_fault_gives_the_default_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each fault is counted; of the first one of a function, kind and place are logged."""
    with caplog.at_level(logging.WARNING, "otel_shim"):
        assert [_broken(), _broken()] == ["fallback", "fallback"]
    assert counters.snapshot() == {"internal_errors": 2}
    assert len(caplog.records) == 1
    assert (
        "_broken" in caplog.text and "RuntimeError" in caplog.text and "test_guard" in caplog.text
    )


@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, False), (logging.DEBUG, True)])
def test_the_text_of_a_fault_is_for_debugging(
    level: int, shown: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we worked on may be in it: a token, an address of somebody."""
    monkeypatch.setattr(_guard, "_reported", set())
    with caplog.at_level(level, "otel_shim"):
        _broken()
    assert ("anna@example.com" in caplog.text) is shown


def test_an_error_is_described_without_its_text() -> None:
    """By its kind, that of its cause, and what the system says of that; a ring of causes ends."""
    refused = ValueError("http://user:password@host")
    refused.__cause__ = ConnectionRefusedError(1, "Connection refused", "/secret/path")
    assert described(refused) == "ValueError from ConnectionRefusedError: Connection refused"
    ring, other = KeyError("anna"), TypeError("token")
    ring.__cause__, other.__cause__ = other, ring
    assert described(ring) in ("KeyError", "KeyError from TypeError")


def test_exits_pass() -> None:
    """Only an ``Exception`` is a fault: an interrupt or cancellation passes."""
    with pytest.raises(KeyboardInterrupt):
        _interrupted()
    assert counters.snapshot() == {}


class _OwnLimit(JobTimeoutException):
    """What an application may make of it."""


@pytest.fixture(
    params=[SoftTimeLimitExceeded, BaseTimeoutException, JobTimeoutException, _OwnLimit]
)
def limit(request: pytest.FixtureRequest) -> Iterator[type[Exception]]:
    """A time limit, which the signal raises as Celery's pool and RQ do it."""
    kind: type[Exception] = request.param

    def strike(number: int, frame: FrameType | None) -> None:
        raise kind("time is over")

    before = signal.signal(signal.SIGALRM, strike)
    yield kind
    signal.signal(signal.SIGALRM, before)


@guarded(default=None)
def _struck() -> None:
    signal.raise_signal(signal.SIGALRM)


class _Striking:
    """The limit strikes while somebody looks at it."""

    def __str__(self) -> str:
        signal.raise_signal(signal.SIGALRM)
        return "never"

    def __bool__(self) -> bool:
        return bool(str(self))

    @property
    def func(self) -> Any:
        return str(self)


def test_a_time_limit_passes(limit: type[Exception]) -> None:
    """Where a time limit strikes in our code, it is still the application's."""
    with pytest.raises(limit, match="time is over"):
        _struck()
    with pytest.raises(limit):
        written(_Striking())
    with pytest.raises(limit):
        written(_Striking())
    with pytest.raises(limit):
        otel_shim.sql_queue(None, state=1, states=cast(Any, _Striking()), enqueued_at=1)
    name, late = rq._declared(_Striking())
    assert (name, type(late)) == (None, limit)
    assert counters.snapshot() == {}


def test_a_time_limit_is_told_by_its_whole_name() -> None:
    """A class of the same name from elsewhere is a fault like any other."""
    assert not is_time_limit(type("SoftTimeLimitExceeded", (Exception,), {})())
    assert not is_time_limit(TimeoutError())
    assert not is_time_limit(None)
