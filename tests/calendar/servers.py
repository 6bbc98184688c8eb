"""Real calendar servers on loopback: Radicale, Xandikos, and those that misbehave."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection, socket

LOGIN, PASSWORD = "alice@example.com", "correct horse"
READY_SECONDS = 60.0
_RADICALE = """
[server]
hosts = 127.0.0.1:{port}
[auth]
type = htpasswd
htpasswd_filename = {folder}/users
htpasswd_encryption = plain
delay = 0
[rights]
type = owner_only
[storage]
filesystem_folder = {folder}/collections
[logging]
level = warning
"""


@dataclass(frozen=True)
class CalendarServer:
    """A running server; ``home`` is the address where a client starts."""

    name: str
    home: str
    login: str | None
    password: str | None
    folder: Path


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def radicale(folder: Path, python: str = sys.executable) -> Iterator[CalendarServer]:
    """Radicale with one account, from the environment of an interpreter."""
    port = free_port()
    (folder / "users").write_text(f"{LOGIN}:{PASSWORD}\n")
    (folder / "config").write_text(_RADICALE.format(port=port, folder=folder))
    argv = (python, "-m", "radicale", "--config", str(folder / "config"))
    with program(argv, port, folder / "radicale.log"):
        home = f"http://127.0.0.1:{port}/"
        yield CalendarServer("radicale", home, LOGIN, PASSWORD, folder)


@contextmanager
def xandikos(folder: Path) -> Iterator[CalendarServer]:
    """Xandikos, which knows no accounts."""
    port, metrics = free_port(), free_port()
    argv = (
        *(sys.executable, "-m", "xandikos", "serve", "--defaults", "-d", str(folder / "data")),
        *("-l", "127.0.0.1", "-p", str(port), "--metrics-port", str(metrics)),
    )
    with program(argv, port, folder / "xandikos.log"):
        home = f"http://127.0.0.1:{port}/user/"
        yield CalendarServer("xandikos", home, None, None, folder)


@contextmanager
def program(argv: tuple[str, ...], port: int, log: Path) -> Iterator[None]:
    """A server that listens on a port; stopped at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        with suppress(OSError), create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}: {log.read_text(errors='replace')}")
