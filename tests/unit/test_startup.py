"""otel_shim.startup: what setting up took, and when it was done."""

from __future__ import annotations

import os
import time

import pytest

from otel_shim import startup


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_spent", "_ready_at"):
        monkeypatch.setattr(startup, name, 0.0)


def test_nothing_is_known_at_first() -> None:
    """Nobody is given time that nobody took."""
    assert startup.spent_since(0.0) == 0.0


def test_the_launcher_and_what_comes_after_add_up() -> None:
    """From the start of the process to the launcher's end, and each block."""
    before = time.time()
    startup.launched()
    launched = startup.spent_since(before)
    assert launched > 0
    with startup.setting_up():
        time.sleep(0)
    assert startup.spent_since(before) > launched
    assert startup.spent_since(time.time() + 1) == 0.0


def test_a_forked_child_waited_for_its_parent() -> None:
    """What was asked for before the parent was ready waited for that; what came later did not."""
    asked = time.time()
    startup.launched()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(
            write, b"%d%d" % (startup.spent_since(asked) > 0, startup.spent_since(time.time()))
        )
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"10"
    os.close(read)
    os.close(write)


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is at least the CPU time."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    startup.launched()
    assert 0 < startup.spent_since(0.0) <= time.process_time()
