"""Locks in forked processes: what a thread of the parent held at that moment, nobody in the child would ever release.

So each process that is forked takes new ones. What the lock guards is not made anew by that: where it is the
parent's alone, its owner forgets it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


def in_children(renew: Callable[[], object]) -> None:
    """Call a function in each process that is forked from now on, before anything else runs there."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=renew)


class Locked:
    """What has a lock, ``_lock``, and another one in each forked process."""

    def __init__(self) -> None:
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()


_all: weakref.WeakSet[Locked] = weakref.WeakSet()


def _renew_all() -> None:
    for each in list(_all):
        each._renew()  # noqa: SLF001 - its own module


in_children(_renew_all)
