"""What was said about each alert: in this process, and in a SQLite file that outlives it.

Who asks never waits for the disk: everything is read once, at the start, and written by a thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from otel_shim.relay.model import Finding, Remembered, Sighting

KEPT_SECONDS = 7 * 24 * 3600.0
MOST = 100_000
"""Alerts in memory; those seen longest ago are forgotten first."""
_LOCKED_SECONDS = 1.0
_SCHEMA = """CREATE TABLE IF NOT EXISTS episodes (
    fingerprint TEXT PRIMARY KEY, finding TEXT NOT NULL, ends_at REAL NOT NULL, seen_at REAL NOT NULL
) WITHOUT ROWID"""
_SAY = "INSERT OR REPLACE INTO episodes VALUES (?, ?, ?, ?)"
_SAID = "SELECT * FROM episodes WHERE seen_at >= ? ORDER BY seen_at"

Outcome = Future["sqlite3.Error | None"]
"""Done when it is on disk, or with the error why it is not."""


class Memory:
    """Findings by fingerprint. Raises sqlite3.Error when the file cannot be used at the start.

    What is written outlives the process at once; the last of it may be lost when the machine dies.
    """

    def __init__(self, file: Path | None, now: float = 0.0) -> None:
        where = ":memory:" if file is None else file
        self._database = sqlite3.connect(where, timeout=_LOCKED_SECONDS, check_same_thread=False)
        self._said = dict(_opened(self._database, now - KEPT_SECONDS))
        self._lock = threading.Lock()
        self._unwritten: dict[str, Remembered] = {}
        self._next: Outcome | None = None
        self._writer = ThreadPoolExecutor(1, "otel-shim-relay-memory")

    def recall(self, fingerprint: str) -> Remembered | None:
        """What was said about an alert."""
        return self._said.get(fingerprint)

    def keep(self, said: Iterable[tuple[str, Remembered]]) -> Outcome:
        """Remember at once, and have it written down; what waits for the disk is written together."""
        with self._lock:
            for key, item in said:
                self._said.pop(key, None)  # the order is that of the last sight
                self._said[key] = self._unwritten[key] = item
            while len(self._said) > MOST:
                del self._said[next(iter(self._said))]
            if self._next is None:
                self._next = self._writer.submit(self._write)
            return self._next

    def _write(self) -> sqlite3.Error | None:
        with self._lock:
            rows, self._unwritten, self._next = self._unwritten, {}, None
        try:
            with self._database:
                self._database.executemany(_SAY, [_row(key, item) for key, item in rows.items()])
        except sqlite3.Error as error:
            self._put_back(rows)
            return error
        return None

    def _put_back(self, rows: Mapping[str, Remembered]) -> None:
        """The next write tries again, with what is newer, of what is still remembered."""
        with self._lock:
            waiting = {**rows, **self._unwritten}
            self._unwritten = {key: item for key, item in waiting.items() if key in self._said}

    def forget(self, now: float) -> Outcome:
        """Delete what nobody will ask for again."""
        before = now - KEPT_SECONDS
        with self._lock:
            for key in [key for key, item in self._said.items() if item.seen_at < before]:
                del self._said[key]
                self._unwritten.pop(key, None)
        return self._writer.submit(self._delete, before)

    def _delete(self, before: float) -> sqlite3.Error | None:
        try:
            with self._database:
                self._database.execute("DELETE FROM episodes WHERE seen_at < ?", (before,))
        except sqlite3.Error as error:
            return error
        return None

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._writer.shutdown()
        self._database.close()


def same_episode(known: Remembered, starts_at: float) -> bool:
    """Whether an alert that started then is the one remembered, not a later one with its labels.

    As Alertmanager sees it: it is another one if it began after that one's end. Where the end never came
    here, that is the one Prometheus gave it while it fired, some minutes ahead. A restarted Prometheus
    gives an alert that still fires a new start, before that end.
    """
    return starts_at <= known.ends_at


def _opened(database: sqlite3.Connection, since: float) -> Iterator[tuple[str, Remembered]]:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("DROP TABLE IF EXISTS said")  # of before episodes had a start
    database.execute(_SCHEMA)
    for key, finding, ends_at, seen_at in database.execute(_SAID, (since,)):
        yield key, Remembered(_finding(finding), ends_at, seen_at)


def _row(key: str, item: Remembered) -> tuple[str, str, float, float]:
    return key, json.dumps(asdict(item.finding)), item.ends_at, item.seen_at


def _finding(text: str) -> Finding:
    stored = json.loads(text)
    sightings = tuple(Sighting(**item) for item in stored["sightings"])
    return Finding(sightings, stored["source"], stored["reason"])
