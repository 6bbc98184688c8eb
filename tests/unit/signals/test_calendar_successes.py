"""When each calendar was last synchronised: the earliest counts, what nobody tries any more does not."""

from __future__ import annotations

import os
import time

import pytest

from otel_shim.signals.calendar_successes import Key, Successes


def key(address: str, provider: str = "caldav", organisation: str | None = "north") -> Key:
    """A calendar."""
    return Key(provider, organisation, address)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_the_earliest_success_of_each_provider(clock: list[float]) -> None:
    """A calendar that fails keeps the age of its last success."""
    seen = Successes()
    for address, provider in (("a", "caldav"), ("b", "caldav"), ("c", "ics")):
        seen.attempted(key(address, provider))
        seen.succeeded(key(address, provider))
        clock[0] += 10
    seen.attempted(key("b"))
    seen.succeeded(key("b"))
    seen.attempted(key("a"))
    assert seen.oldest() == {"caldav": 1000.0, "ics": 1020.0}
    assert seen.delay(key("a")) == 30.0
    assert seen.delay(key("a", organisation="south")) is None


def test_a_calendar_that_never_succeeded_ages_from_its_first_attempt(clock: list[float]) -> None:
    """Or one that fails from the start would never be noticed."""
    seen = Successes()
    for _ in range(3):
        seen.attempted(key("a"))
        clock[0] += 100
    assert seen.oldest() == {"caldav": 1000.0}
    assert seen.delay(key("a")) is None


def test_a_calendar_that_nobody_tries_is_forgotten(clock: list[float]) -> None:
    """One that was unsubscribed must not raise an alarm for ever."""
    seen = Successes()
    seen.attempted(key("a"))
    seen.attempted(key("b"))
    clock[0] += 80_000
    seen.attempted(key("b"))
    clock[0] += 10_000
    assert seen.oldest() == {"caldav": 1000.0}
    assert seen.delay(key("a")) is None
    clock[0] += 80_000
    assert seen.oldest() == {}


def test_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those tried longest ago are forgotten first."""
    monkeypatch.setattr("otel_shim.signals.calendar_successes._MOST", 3)
    seen = Successes()
    for address in "abcd":
        seen.attempted(key(address))
        seen.succeeded(key(address))
    assert seen.delay(key("a")) is None
    assert seen.delay(key("d")) is not None


def test_a_forked_process_starts_anew() -> None:
    """What the parent synchronises is the parent's to report."""
    seen = Successes()
    seen.attempted(key("a"))
    child = os.fork()
    if child == 0:
        os._exit(0 if seen.oldest() == {} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert seen.oldest() != {}
