"""What was said about each alert, in a SQLite file, so that it outlives the relay."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from otel_shim.relay.model import Finding, Remembered, Sighting

KEPT_SECONDS = 7 * 24 * 3600.0
# Prometheus repeats an alert every minute or so; one that was silent this long has ended unseen.
FORGOTTEN_SECONDS = 6 * 3600.0
_SCHEMA = """CREATE TABLE IF NOT EXISTS said (
    fingerprint TEXT PRIMARY KEY, finding TEXT NOT NULL, seen_at REAL NOT NULL, resolved_at REAL
) WITHOUT ROWID"""
_SAY = """INSERT INTO said VALUES (?, ?, ?, ?) ON CONFLICT (fingerprint) DO UPDATE SET
    finding = excluded.finding, seen_at = excluded.seen_at, resolved_at = excluded.resolved_at"""


class Memory:
    """Findings by fingerprint. Raises sqlite3.Error when the file cannot be used.

    What is written outlives the process at once; the last of it may be lost when the machine dies.
    """

    def __init__(self, file: Path | None) -> None:
        self._database = sqlite3.connect(":memory:" if file is None else file)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(_SCHEMA)

    def recall(self, fingerprint: str) -> Remembered | None:
        """What was said about an alert."""
        row = self._database.execute(
            "SELECT finding, seen_at, resolved_at FROM said WHERE fingerprint = ?", (fingerprint,)
        ).fetchone()
        return None if row is None else Remembered(_finding(row[0]), row[1], row[2])

    def keep(self, said: Iterable[tuple[str, Remembered]]) -> None:
        """Write down what is said."""
        with self._database:
            self._database.executemany(_SAY, [_row(key, item) for key, item in said])

    def forget(self, now: float) -> None:
        """Delete what nobody will ask for again."""
        with self._database:
            self._database.execute("DELETE FROM said WHERE seen_at < ?", (now - KEPT_SECONDS,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def same_episode(remembered: Remembered, starts_at: float | None) -> bool:
    """Whether an alert that started then is the one remembered, not a later one with its labels."""
    if starts_at is None:
        return True
    if remembered.resolved_at is not None:
        return starts_at <= remembered.resolved_at
    return starts_at <= remembered.seen_at + FORGOTTEN_SECONDS


def _row(key: str, item: Remembered) -> tuple[str, str, float, float | None]:
    return key, json.dumps(asdict(item.finding)), item.seen_at, item.resolved_at


def _finding(text: str) -> Finding:
    stored = json.loads(text)
    sightings = tuple(Sighting(**item) for item in stored["sightings"])
    return Finding(sightings, stored["source"], stored["reason"])
