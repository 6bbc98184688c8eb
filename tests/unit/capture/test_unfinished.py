"""What waits for its next step: taken, replaced, concluded after a time, at the end, and never twice."""

from __future__ import annotations

import os
import threading

import pytest

from otel_shim import counters
from otel_shim.capture import unfinished
from otel_shim.capture.unfinished import Unfinished


def test_taken_is_not_concluded() -> None:
    """The next step comes."""
    concluded: list[str] = []
    waiting: Unfinished[str] = Unfinished(concluded.append, 60)
    waiting.put("key", "a")
    assert len(waiting) == 1
    assert waiting.take("key") == "a"
    assert waiting.take("key") is None
    waiting.finish()
    assert concluded == []


def test_the_next_step_does_not_come() -> None:
    """After the time each is concluded, once, the earliest first."""
    concluded: list[str] = []
    over = threading.Event()

    def conclude(value: str) -> None:
        concluded.append(value)
        if len(concluded) == 2:
            over.set()

    waiting: Unfinished[str] = Unfinished(conclude, 0.05)
    waiting.put(1, "a")
    waiting.put(2, "b")
    assert over.wait(30)
    assert concluded == ["a", "b"]
    assert len(waiting) == 0


def test_replaced_and_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another under the same key, or one too many, concludes what was there."""
    monkeypatch.setattr(unfinished, "_MOST", 2)
    concluded: list[str] = []
    waiting: Unfinished[str] = Unfinished(concluded.append, 60)
    waiting.put(1, "a")
    waiting.put(1, "b")
    assert concluded == ["a"]
    waiting.put(2, "c")
    waiting.put(3, "d")
    assert concluded == ["a", "b"]
    waiting.finish()
    assert concluded == ["a", "b", "c", "d"]


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are concluded until what waits holds few enough; what was taken or concluded holds none."""
    monkeypatch.setattr(unfinished, "_MOST_BYTES", 10)
    concluded: list[str] = []
    waiting: Unfinished[str] = Unfinished(concluded.append, 60)
    for value in "abc":
        waiting.put(value, value, 3)
    waiting.put("d", "d", 7)
    assert concluded == ["a", "b"]
    assert waiting.take("c") == "c"
    waiting.put("e", "e", 3)
    waiting.put("e", "f", 2)
    assert concluded == ["a", "b", "e"]
    waiting.put("too large", "g", 11)
    assert concluded == ["a", "b", "e", "d", "f", "g"]
    waiting.put("h", "h", 10)
    assert len(waiting) == 1


def test_a_conclusion_that_fails_is_counted() -> None:
    """And the next one is concluded all the same."""
    concluded: list[int] = []

    def conclude(value: int) -> None:
        concluded.append(10 // value)

    waiting: Unfinished[int] = Unfinished(conclude, 60)
    waiting.put("a", 0)
    waiting.put("b", 5)
    waiting.finish()
    assert concluded == [2]
    assert counters.snapshot()["internal_errors"] == 1


def test_a_forked_process_has_none() -> None:
    """What waits is the parent's, which will conclude it."""
    concluded: list[str] = []
    waiting: Unfinished[str] = Unfinished(concluded.append, 60)
    waiting.put("key", "a")
    child = os.fork()
    if child == 0:
        os._exit(0 if len(waiting) == 0 and waiting.take("key") is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert waiting.take("key") == "a"
