"""Several queues of one broker, read together: one connection for each process and collection."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from otel_shim import queues
from otel_shim.queues import QueueReading

LIMIT_SECONDS = 1.0
"""How long a broker may take to accept a connection, and for each answer."""
_FRESH_SECONDS = 1.0
"""For how long one reading, or that it failed, holds for all queues."""


class Broker:
    """The queues of one broker that this process reads.

    ``read_all`` takes their names and gives a reading of each, or raises what the broker's client does.
    """

    def __init__(self, read_all: Callable[[Iterable[str]], Mapping[str, QueueReading]]) -> None:
        self._read_all = read_all
        self._names: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._read_at = -_FRESH_SECONDS
        self._readings: Mapping[str, QueueReading] = {}
        self._error: Exception | None = None

    def watch(self, name: str) -> bool:
        """Read a queue from now on; not one whose name a label cannot be, which would be another's too."""
        if name not in self._names and queues.label(name) == name:
            self._names.add(name)
            queues.register(name, partial(self.read, name))
        return name in self._names

    def forget(self) -> None:
        """Read none of them any more; for tests."""
        for name in self._names:
            queues.forget(name)
        self._names.clear()

    def read(self, name: str) -> QueueReading:
        """The reading of a queue, made with that of all others or by one of them just before."""
        if self._process != os.getpid():  # forked, perhaps while another thread was reading
            self._forget()
        with self._lock:
            missing = self._error is None and name not in self._readings
            if missing or time.monotonic() - self._read_at >= _FRESH_SECONDS:
                self._read()
        if self._error is not None:
            raise self._error
        return self._readings[name]

    def _read(self) -> None:
        self._readings, self._error = {}, None
        try:
            self._readings = self._read_all(sorted(self._names.copy()))
        except Exception as error:  # noqa: BLE001 - a broker's client may raise anything
            self._error = error
        self._read_at = time.monotonic()
