"""How long telemetry took to set itself up in this process, before any of the application ran.

A process that is started for a job is as much later as that takes; whoever judges the job's lateness has
to know. Imports next to nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_spent = 0.0
_ready_at = 0.0


def launched() -> None:
    """Note that the launcher is done: so far nothing but Python and telemetry has run in this process."""
    _add(_age())


@contextmanager
def setting_up() -> Iterator[None]:
    """A block that is a part of setting up."""
    began = time.perf_counter()
    yield
    _add(time.perf_counter() - began)


def spent_since(asked: float) -> float:
    """The seconds that setting up took, where it was not over at a time; in a forked process its parent's."""
    return _spent if asked < _ready_at else 0.0


def _add(seconds: float) -> None:
    global _spent, _ready_at
    _spent, _ready_at = _spent + seconds, time.time()


def _age() -> float:
    """The seconds since this process began; its CPU time where the system does not tell."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - pathlib takes longer to import
            since_boot = int(file.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, AttributeError, ValueError, IndexError):
        return time.process_time()
