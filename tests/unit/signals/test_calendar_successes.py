"""When each calendar was last synchronised: the earliest counts, what nobody tries any more does not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from otel_shim.signals.calendar_successes import Group, Key, Successes, group


def key(address: str, provider: str = "caldav", organisation: str | None = "north") -> Key:
    """A calendar."""
    return Key(provider, organisation, address)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def alone(at: float, *addresses: str) -> dict[Group, float]:
    """What is told of calendars of which each is alone in its group."""
    return {group(key(each)): at for each in addresses}


def test_each_calendar_alone_in_its_group(clock: list[float]) -> None:
    """It has the age of its last success, whether it failed since or not."""
    seen = Successes()
    for address, provider in (("a", "caldav"), ("b", "caldav"), ("c", "ics")):
        seen.attempted(key(address, provider))
        seen.succeeded(key(address, provider))
        clock[0] += 10
    seen.attempted(key("b"))
    seen.succeeded(key("b"))
    seen.attempted(key("a"))
    seen.failed(key("a"))
    assert seen.oldest() == {
        **alone(1000.0, "a"),
        **alone(1030.0, "b"),
        group(key("c", "ics")): 1020.0,
    }
    assert seen.delay(key("a")) == 30.0
    assert seen.delay(key("a", organisation="south")) is None


def test_a_calendar_that_never_succeeded_ages_from_its_first_attempt(clock: list[float]) -> None:
    """Or one that fails from the start would never be noticed."""
    seen = Successes()
    for _ in range(3):
        seen.attempted(key("a"))
        seen.failed(key("a"))
        clock[0] += 100
    assert seen.oldest() == alone(1000.0, "a")
    assert seen.delay(key("a")) is None


def test_a_calendar_that_nobody_tries_is_forgotten(clock: list[float]) -> None:
    """One that was unsubscribed must not raise an alarm for ever."""
    seen = Successes()
    seen.attempted(key("a"))
    seen.attempted(key("b"))
    clock[0] += 80_000
    seen.attempted(key("b"))
    clock[0] += 10_000
    assert seen.oldest() == alone(1000.0, "b")
    assert seen.delay(key("a")) is None
    clock[0] += 80_000
    assert seen.oldest() == alone(0.0, "b")  # told of before: a file of /metrics would keep its age


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Group:
    """All calendars are in one group, as some always are."""
    monkeypatch.setattr("otel_shim.signals.calendar_successes._BUCKETS", 1)
    return Group("caldav", 0)


def test_a_calendar_left_to_another_process_does_not_age(
    clock: list[float], together: Group
) -> None:
    """Its last attempt here was complete: what became of it since is not known here."""
    seen = Successes()
    for address in "ab":
        seen.attempted(key(address))
        seen.succeeded(key(address))
        clock[0] += 5000
    assert seen.oldest() == {together: 6000.0}


def test_a_calendar_that_fails_is_told_of_in_a_group(clock: list[float], together: Group) -> None:
    """However well the others do; until it succeeds again."""
    seen = Successes()
    seen.attempted(key("a"))
    seen.succeeded(key("a"))
    clock[0] += 10
    seen.attempted(key("a"))
    seen.failed(key("a"))
    seen.attempted(key("b"))
    seen.succeeded(key("b"))
    assert seen.oldest() == {together: 1000.0}
    seen.attempted(key("a"))
    seen.succeeded(key("a"))
    assert seen.oldest() == {together: 1010.0}


def test_an_attempt_that_does_not_end_ages_from_its_start(
    clock: list[float], together: Group
) -> None:
    """Of several, from that of the first."""
    seen = Successes()
    for _ in range(3):
        seen.attempted(key("a"))
        seen.attempted(key("b"))
        seen.succeeded(key("b"))
        clock[0] += 100
    assert seen.oldest() == {together: 1000.0}


def test_processes_that_take_turns_are_never_late(clock: list[float]) -> None:
    """Four processes, 200 calendars each synchronised every five minutes by one of them, as a pool does.

    What the rule makes of it: of a group the best informed process, then the group that waits longest.
    """
    choice = random.Random(7)
    pool = [Successes() for _ in range(4)]
    worst = blind = 0.0
    for _ in range(100):
        for address in range(200):
            process = choice.choice(pool)
            process.attempted(key(str(address)))
            process.succeeded(key(str(address)))
            clock[0] += 1.5
        told = [each.oldest() for each in pool]
        best = {each: max(t.get(each, 0.0) for t in told) for t in told for each in t}
        worst = max(worst, clock[0] - min(best.values()))
        blind = max(blind, clock[0] - min(min(t.values()) for t in told))
    assert worst <= 300.0
    assert blind > 1800.0  # one process alone knows less: why there are groups


def test_groups_are_the_same_in_every_process() -> None:
    """Python's own hash is not."""
    code = (
        "from otel_shim.signals.calendar_successes import Key, group;"
        "print([group(Key('ics', None, str(n))).bucket for n in range(9)])"
    )
    ours = str([group(key(str(n), "ics", None)).bucket for n in range(9)])
    for seed in "12":
        there = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == ours


def test_an_address_that_is_no_unicode_has_a_group() -> None:
    """What is not text must not fail the application."""
    assert 0 <= group(key("\ud800")).bucket < 256


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


def test_a_forked_process_knows_how_old_its_copy_is() -> None:
    """A process for each job, as RQ's, is told by its parent when a calendar last succeeded."""
    seen = Successes()
    seen.attempted(key("a"))
    seen.succeeded(key("a"))
    child = os.fork()
    if child == 0:
        delay = seen.delay(key("a"))
        os._exit(0 if delay is not None and delay < 60 and seen.delay(key("b")) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
