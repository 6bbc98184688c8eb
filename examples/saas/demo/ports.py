"""Ports for what is started: nobody uses them now, and no other process that asks here is given them."""

import fcntl
import functools
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

# Below those that Linux (from 32768) and macOS (from 49152) give to outgoing connections and to who
# binds to port 0: in between asking and listening, none of them can take one.
PORTS = range(20_000, 32_000)
_one_at_a_time = threading.Lock()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are this process's until it ends, all different."""
    with _one_at_a_time:
        found = list(itertools.islice(_free(), count))
    if len(found) < count:
        raise OSError(f"no {count} free ports in {PORTS}")
    return found


def _free() -> Iterator[int]:
    """The next ones; each is looked at once in a process, from a place of its own on."""
    return (port for port in _candidates() if _reserved(port) and _unused(port))


@functools.cache
def _candidates() -> Iterator[int]:
    first = os.getpid() * 97 % len(PORTS)
    return iter((*PORTS[first:], *PORTS[:first]))


def _reserved(port: int) -> bool:
    """Lock the byte of the port in a file; the system gives it back when this process ends."""
    try:
        fcntl.lockf(_ledger(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # another process has it
        return False
    return True


@functools.cache
def _ledger() -> int:
    path = Path(tempfile.gettempdir(), f"otel-shim-ports-{os.geteuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _unused(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:  # somebody who does not ask here
            return False
    return True
