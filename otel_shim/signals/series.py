"""Metrics that several processes share through files: exact also for one that was killed.

Each process writes its own file, through a memory map, at the very moment of each measurement; whoever
is asked adds the files up. A file belongs to a living process while that holds a lock on it; the kernel
lets go of the lock, whatever ends the process.

    file  = chunk*                     chunk = used bytes (u64), record*
    record = key length, value count (2 x u32), key padded to 8 bytes, values (f64)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 18
SUFFIX = ".series"
COUNTER, UP_DOWN, GAUGE, LIVING, HISTOGRAM = "c", "u", "g", "l", "h"
"""What becomes of the values of several processes: sum; sum of the living; the newest; that of the living; sum."""
GAUGES = (GAUGE, LIVING)
_HEAD = struct.Struct("<II")
_USED = struct.Struct("<Q")
_VALUE = struct.Struct("<d")


class Description(NamedTuple):
    """What one series is: the same in every process, so it serves as its key."""

    kind: str
    name: str
    unit: str
    brief: str
    boundaries: tuple[float, ...]
    labels: tuple[tuple[str, str], ...]

    def encoded(self) -> bytes:
        """The key: the kind, and all of it as JSON."""
        return f"{self.kind}{json.dumps(self, separators=(',', ':'))}".encode()


def described(key: bytes) -> Description:
    """The description that a key stands for."""
    kind, name, unit, brief, boundaries, labels = json.loads(key[1:])
    pairs = tuple((str(k), str(v)) for k, v in labels)
    return Description(kind, name, unit, brief, tuple(boundaries), pairs)


class Slot:
    """The values of one series of this process, in the file and in memory."""

    __slots__ = ("_map", "_offset", "values")

    def __init__(self, map_: mmap.mmap, offset: int, count: int) -> None:
        self._map = map_
        self._offset = offset
        self.values = [0.0] * count

    def put(self, index: int, value: float) -> None:
        """Set one value."""
        self.values[index] = value
        _VALUE.pack_into(self._map, self._offset + 8 * index, value)


class OwnFile:
    """The file of this process; made and locked at once, and unlinked by nobody while it lives."""

    def __init__(self, directory: Path) -> None:
        path = directory / f"{os.getpid()}-{time.time_ns()}{SUFFIX}"
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._map: mmap.mmap | None = None
        self._chunks = 0
        self._used = CHUNK

    def close(self) -> None:
        """Close this process's handle; for a forked child, whose parent keeps the lock."""
        os.close(self._fd)

    def slot(self, key: bytes, count: int) -> Slot:
        """Room for a new series; ValueError where it can never fit, OSError where the disk is full.

        The record can be seen by others only when it is complete.
        """
        start = _HEAD.size + len(key) + -len(key) % 8
        size = start + 8 * count
        if size > CHUNK - _USED.size:
            raise ValueError("a series of more than a chunk")
        if self._used + size > CHUNK:
            self._grow()
        assert self._map is not None
        _HEAD.pack_into(self._map, self._used, len(key), count)
        self._map[self._used + _HEAD.size : self._used + _HEAD.size + len(key)] = key
        slot = Slot(self._map, self._used + start, count)
        self._used += size
        _USED.pack_into(self._map, 0, self._used)
        return slot

    def _grow(self) -> None:
        """Add a chunk; written out, because a map over a hole of a full disk would kill the process."""
        offset = self._chunks * CHUNK
        _write(self._fd, bytes(CHUNK), offset)
        self._map = mmap.mmap(self._fd, CHUNK, offset=offset)
        self._chunks += 1
        self._used = _USED.size
        _USED.pack_into(self._map, 0, self._used)


def _write(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def records(content: bytes) -> Iterator[tuple[bytes, tuple[float, ...]]]:
    """The keys and values of a file."""
    for chunk in range(0, len(content) - CHUNK + 1, CHUNK):
        end = chunk + min(_USED.unpack_from(content, chunk)[0], CHUNK)
        at = chunk + _USED.size
        while at < end:
            length, count = _HEAD.unpack_from(content, at)
            at += _HEAD.size
            key = content[at : at + length]
            at += length + -length % 8
            yield key, struct.unpack_from(f"<{count}d", content, at)
            at += 8 * count


@dataclass(frozen=True)
class Share:
    """What one process contributed, and whether it still lives."""

    content: bytes
    alive: bool


def merged(shares: Iterable[Share]) -> dict[bytes, list[float]]:
    """The series of all processes together."""
    total: dict[bytes, list[float]] = {}
    for share in shares:
        for key, values in records(share.content):
            kind = chr(key[0])
            before = total.get(key)
            if kind in (UP_DOWN, LIVING) and not share.alive:
                continue
            if before is None:
                total[key] = list(values)
            elif kind not in GAUGES:
                total[key] = [a + b for a, b in zip(before, values, strict=True)]
            elif values[1] > before[1]:
                total[key] = list(values)
    return total


class Directory:
    """The place that the processes of one application share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: int | None = None

    def forget(self) -> None:
        """Let go of what a fork has copied in the middle of another thread's work."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def join(self) -> OwnFile:
        """Make this process's file. Where nobody else lives, a new life begins: what was there goes.

        OSError where the directory cannot be used, or is not ours alone.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{self.path} can be written by others")
        with self._alone():
            files = self._files()
            if not any(_is_held(file) for file in files):
                for file in files:
                    file.unlink()
            return OwnFile(self.path)

    def shares(self) -> list[Share]:
        """What each process wrote so far. Liveness is asked first: one that dies meanwhile counts as alive."""
        with self._alone():
            files = [(file, _is_held(file)) for file in self._files()]
            self._fold([file for file, alive in files if not alive])
            return [Share(file.read_bytes(), _is_held(file)) for file in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self.path.glob(f"*{SUFFIX}"))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else joins, folds or reads inside."""
        fd = os.open(self.path / "directory.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._held = fd
            yield
        finally:
            self._held = None
            os.close(fd)

    def _fold(self, dead: Sequence[Path]) -> None:
        """Make one file of those that dead processes left behind, when there are many.

        A restart for every so many requests would otherwise make each answer slower than the last. The
        files go first and the sum appears last: a crash in between loses counts, and never doubles them.
        """
        if len(dead) < _FOLD_AT:
            return
        total = merged(Share(file.read_bytes(), alive=False) for file in dead)
        with tempfile.TemporaryDirectory(dir=self.path) as place:
            own = OwnFile(Path(place))
            for key, values in total.items():
                slot = own.slot(key, len(values))
                for index, value in enumerate(values):
                    slot.put(index, value)
            own.close()
            (written,) = Path(place).iterdir()
            for file in dead:
                file.unlink()
            written.rename(self.path / written.name)


_FOLD_AT = 16


def _is_held(file: Path) -> bool:
    """Whether the process that made a file still lives."""
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Series:
    """The series of this process; thread-safe. Without a file, after a fork, one is joined anew."""

    def __init__(self, directory: Directory, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._file: OwnFile | None = None
        self.when_joined: Callable[[], object] | None = None
        """What else is to be done when a forked child joins."""
        self.forget()

    def join(self) -> None:
        """Make this process's file, unless it has one; OSError as ``Directory.join``."""
        with self._lock:
            if self._file is not None:
                return
            self._file = self._directory.join()
        if self.when_joined is not None:
            self.when_joined()

    def forget(self) -> None:
        """Start from nothing: a forked child's counts are its own."""
        self._directory.forget()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock = threading.Lock()
        self._slots: dict[object, tuple[Slot, tuple[float, ...]]] = {}
        self._by_key: dict[bytes, Slot] = {}
        self._counts: dict[str, int] = {}

    def find(self, cache_key: object) -> tuple[Slot, tuple[float, ...]] | None:
        """What was entered under a key of the caller's."""
        return self._slots.get(cache_key)

    def enter(
        self, cache_key: object, series: Description, overflow: Mapping[str, str]
    ) -> tuple[Slot, tuple[float, ...]]:
        """The slot for a series, beyond the limit of its metric that of the overflow."""
        self.join()
        with self._lock:
            key = series.encoded()
            if key not in self._by_key and self._counts.get(series.name, 0) >= self._limit:
                series = series._replace(labels=tuple(overflow.items()))
                key = series.encoded()
            slot = self._by_key.get(key) or self._made(key, series)
            found = (slot, series.boundaries)
            if len(self._slots) < 10 * self._limit:
                self._slots[cache_key] = found
            return found

    def _made(self, key: bytes, series: Description) -> Slot:
        assert self._file is not None
        width = {HISTOGRAM: len(series.boundaries) + 2, **dict.fromkeys(GAUGES, 2)}
        slot = self._file.slot(key, width.get(series.kind, 1))
        self._by_key[key] = slot
        self._counts[series.name] = self._counts.get(series.name, 0) + 1
        return slot

    def add(self, slot: Slot, amount: float) -> None:
        """Add to a counter."""
        with self._lock:
            slot.put(0, slot.values[0] + amount)

    def observe(self, slot: Slot, boundaries: tuple[float, ...], value: float) -> None:
        """Count a value in its bucket of a histogram, and add it to the sum, which stands last."""
        with self._lock:
            bucket, last = bisect_left(boundaries, value), len(boundaries) + 1
            slot.put(bucket, slot.values[bucket] + 1)
            slot.put(last, slot.values[last] + value)

    def put(self, slot: Slot, values: Sequence[float]) -> None:
        """Set the values."""
        with self._lock:
            for index, value in enumerate(values):
                slot.put(index, value)
