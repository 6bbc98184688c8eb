"""otel_shim.heartbeats: what is declared of a job, and when it last did what."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from otel_shim import counters, heartbeats
from otel_shim.heartbeats import Declaration, Heartbeat, Heartbeats

NAME = "audit.retention.job"


def test_a_run_that_ends_well() -> None:
    """A start, then a success with its time and duration."""
    beats = Heartbeats()
    assert not beats.started(NAME, 100.0)
    assert beats.beats() == {NAME: Heartbeat([100.0], last_start=100.0)}
    beats.ended(NAME, 100.0, 7.0, success=True)
    assert beats.beats() == {NAME: Heartbeat([], 100.0, 107.0, 7.0)}


def test_a_failure_moves_no_success() -> None:
    """The last success keeps ageing."""
    beats = Heartbeats()
    beats.started(NAME, 100.0)
    beats.ended(NAME, 100.0, 7.0, success=True, recovery_point=50.0)
    beats.started(NAME, 200.0)
    beats.ended(NAME, 200.0, 1.0, success=False, recovery_point=150.0)
    assert beats.beats() == {NAME: Heartbeat([], 200.0, 107.0, 7.0, None, 50.0)}


def test_a_start_during_a_run_is_an_overlap() -> None:
    """Told by the second start; afterwards none is at work."""
    beats = Heartbeats()
    assert [beats.started(NAME, 1.0), beats.started(NAME, 2.0)] == [False, True]
    beats.ended(NAME, 1.0, 2.0, success=True)
    assert beats.started(NAME, 4.0)
    for at in (4.0, 2.0, 2.0):
        beats.ended(NAME, at, 1.0, success=False)
    assert beats.beats()[NAME].active == 0


def test_the_run_that_is_longest_at_work() -> None:
    """A later start hides no run that hangs, and its own end does not end that one."""
    beats = Heartbeats()
    beats.started(NAME, 100.0)
    beats.started(NAME, 400.0)
    assert beats.beats()[NAME].active_since == 100.0
    beats.ended(NAME, 400.0, 1.0, success=True)
    beats.started(NAME, 700.0)
    assert beats.beats()[NAME].active_since == 100.0
    beats.ended(NAME, 100.0, 601.0, success=True)
    assert beats.beats()[NAME].active_since == 700.0
    beats.ended(NAME, 700.0, 2.0, success=True)
    assert beats.beats()[NAME].active_since is None


def test_many_threads() -> None:
    """No start or end is lost."""
    beats = Heartbeats()

    def run(number: int) -> None:
        beats.started(NAME, float(number))
        if number % 2:
            beats.ended(NAME, float(number), 1.0, success=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(2000)))
    assert beats.beats()[NAME].active == 1000


def test_jobs_beyond_the_limit_are_counted() -> None:
    """A name for each customer must not fill the memory."""
    beats = Heartbeats()
    for number in range(heartbeats.MOST + 5):
        beats.started(f"job.{number}", 1.0)
        beats.ended(f"job.{number}", 2.0, 1.0, success=True)
        beats.declare(Declaration(f"job.{number}", period=60.0))
    assert len(beats.beats()) == len(beats.declarations()) == heartbeats.MOST
    assert counters.snapshot()["jobs_not_watched"] == 10


def test_what_the_decorator_declares_goes_first() -> None:
    """What it leaves open, a scheduler says: of several the one that runs most often."""
    beats = Heartbeats()
    beats.declare(Declaration(NAME, None, None, 600.0, critical=True, at=1.0))
    beats.declare(Declaration(NAME, "every 1h", 3600.0, at=2.0), "apscheduler:a")
    beats.declare(Declaration(NAME, "every 5m", 300.0, at=3.0), "apscheduler:b")
    found = beats.declared(NAME)
    assert found == Declaration(NAME, "every 5m", 300.0, 600.0, critical=True, at=2.0)
    beats.declare(Declaration(NAME, "every 1d", 86400.0, at=4.0))
    declared = beats.declared(NAME)
    assert declared is not None and declared.period == 86400.0


def test_a_withdrawn_schedule_is_forgotten() -> None:
    """A job that the scheduler no longer has is not missed."""
    beats = Heartbeats()
    beats.declare(Declaration(NAME, "every 1h", 3600.0), "apscheduler:a")
    beats.withdraw(NAME, "apscheduler:b")
    assert len(beats.declarations()) == 1
    beats.withdraw(NAME, "apscheduler:a")
    assert beats.declarations() == [] and beats.declared(NAME) is None


def test_a_withdrawal_is_told() -> None:
    """With the period 0 and its own time, until the job has a schedule again, which is one of a new time."""
    beats = Heartbeats()
    beats.declare(Declaration(NAME, max_runtime=60.0, critical=True, at=1.0))
    beats.declare(Declaration(NAME, "every 1h", 3600.0, at=2.0), "apscheduler:a")
    beats.withdraw(NAME, "apscheduler:a")
    (told,) = beats.told()
    assert (told.period, told.max_runtime, told.critical) == (0.0, 60.0, True)
    assert told.at > 2.0
    assert [each.period for each in beats.declarations()] == [None]
    beats.declare(Declaration(NAME, "every 1h", 3600.0, at=told.at + 5), "apscheduler:a")
    (again,) = beats.told()
    assert (again.period, again.at) == (3600.0, told.at + 5)


def test_one_of_two_schedules_is_withdrawn() -> None:
    """The other stands, since when the first was declared; nothing is withdrawn that was never there."""
    beats = Heartbeats()
    for at, source in enumerate("abc", start=1):
        beats.declare(Declaration(NAME, "every 1h", 3600.0, at=float(at)), source)
    beats.withdraw(NAME, "a")
    beats.withdraw("other.job", "a")
    assert [(each.period, each.at) for each in beats.told()] == [(3600.0, 1.0)]


def test_withdrawals_are_limited() -> None:
    """Jobs of tenants come and go; what is declared has room before what was."""
    beats = Heartbeats()
    for number in range(heartbeats.MOST + 5):
        beats.declare(Declaration(f"job.{number}", period=60.0), "a")
        beats.withdraw(f"job.{number}", "a")
    beats.declare(Declaration(NAME, period=60.0))
    told = beats.told()
    assert len(told) == heartbeats.MOST and told[0].name == NAME
    assert told[-1].name == f"job.{heartbeats.MOST + 4}"


def test_a_forked_child_has_its_own_times() -> None:
    """It keeps what is declared; the runs of its parent are the parent's to tell."""
    beats = Heartbeats()
    beats.declare(Declaration(NAME, "every 1h", 3600.0, at=5.0))
    beats.started(NAME, 1.0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        overlap = beats.started("other.job", 2.0)
        told = f"{sorted(beats.beats())} {len(beats.declarations())} {overlap}"
        os.write(write, told.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000).decode() == "['other.job'] 1 False"
    os.close(read)
    os.close(write)
    assert sorted(beats.beats()) == [NAME]
