"""otel_shim.counters: what did not go as hoped is counted, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from otel_shim import counters


def _add_thousand() -> None:
    for _ in range(1000):
        counters.add("x")


def test_counts_from_threads_are_complete() -> None:
    """No count is lost when threads count at once."""
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(_add_thousand)
    counters.add("y", 3)
    assert counters.snapshot() == {"x": 8000, "y": 3}


def test_snapshot_is_a_copy() -> None:
    """Who changes a snapshot changes no counter."""
    counters.add("x")
    counters.snapshot()["x"] = 100
    assert counters.snapshot() == {"x": 1}
