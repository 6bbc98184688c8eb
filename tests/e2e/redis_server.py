"""A Redis server of the tests' own: found or installed, started on a free port, thrown away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import clean_environment

from .system_packages import found_or_installed

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
NAMES = ("redis-server", "valkey-server")
FOLDERS = "/usr/bin:/usr/local/bin:/opt/homebrew/bin"
NO_SERVER = (
    "these tests need redis-server: as root it is installed with apt-get, else install it, on Debian"
    " with `apt-get install redis-server`, or put it on PATH"
)


@dataclass
class Redis:
    """A server that can be stopped, started again, and made to hang."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        """What the application is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = (
            *(program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--appendonly", "no", "--dir", str(self.folder)),
        )
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            text = (self.folder / "redis.log").read_text(errors="replace")
            assert self.process.poll() is None, f"Redis ended: {text}"
            assert time.monotonic() < deadline, f"Redis did not start: {text}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; what it held is gone."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.terminate()
        self.process.wait(STOP_SECONDS)

    def hang(self) -> None:
        """Let it accept and never answer."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        os.kill(self.process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


def program() -> str:
    """The path of the server; as root it is installed where there is none."""
    found = found_or_installed(_found, "redis-server", {})
    assert found is not None, NO_SERVER
    return found


def _found() -> str | None:
    places = os.pathsep.join((os.environ.get("PATH", ""), FOLDERS))
    return next((path for name in NAMES if (path := shutil.which(name, path=places))), None)


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """Serve until the end of the block."""
    (port,) = free_ports(1)
    server = Redis(port, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
