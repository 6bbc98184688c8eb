"""A PostgreSQL server of the tests' own: found or installed, started on a free port, thrown away."""

from __future__ import annotations

import csv
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import clean_environment

from .system_packages import found_or_installed, run

USER, DATABASE = "roster", "roster"
ACCOUNT = "postgres"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
FOLDERS = ("usr/lib/postgresql/*/bin", "opt/homebrew/opt/postgresql*/bin", "usr/pgsql-*/bin")
NO_SERVER = (
    "these tests need PostgreSQL's programs (initdb, postgres): as root they are installed with apt-get,"
    " else install them, on Debian with `apt-get install postgresql`, or put them on PATH"
)
NO_CLUSTER = {
    Path("/etc/postgresql-common/createcluster.d/otel-shim-tests.conf"): (
        "create_main_cluster = false\n"
    )
}
"""Debian's package makes and starts a cluster of its own unless told not to."""


@dataclass(frozen=True)
class Statement:
    """A line of the server's log: a statement that it ran, or an error that it answered with."""

    text: str
    """Empty for an error."""
    sql_state: str


@dataclass(frozen=True)
class Cluster:
    """A running server; its log has every statement that it got, so it tells what really happened."""

    port: int
    password: str
    log: Path

    @property
    def url(self) -> str:
        """What the application is given."""
        return f"postgresql+asyncpg://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def statements(self) -> list[Statement]:
        """All that it logged so far, without its own start and stop."""
        with self.log.open(newline="") as lines:
            rows = [row for row in csv.reader(lines) if row[2] == DATABASE]
        return [_statement(message=row[13], state=row[12]) for row in rows]


def _statement(message: str, state: str) -> Statement:
    kind, _, text = message.partition(": ")
    ran = kind == "statement" or kind.startswith("execute ")
    return Statement(text if ran else "", state)


def programs() -> Path:
    """The folder of the newest PostgreSQL; as root it is installed where there is none."""
    folder = found_or_installed(_found, "postgresql", NO_CLUSTER)
    assert folder is not None, NO_SERVER
    return folder


def _found() -> Path | None:
    folders = [found for pattern in FOLDERS for found in Path("/").glob(pattern)]
    on_path = shutil.which("initdb")
    chosen = sorted(folders, key=_version)[-1:] or ([Path(on_path).parent] if on_path else [])
    usable = [folder for folder in chosen if (folder / "postgres").exists()]
    return usable[0] if usable else None


def _version(folder: Path) -> int:
    digits = "".join(c for c in str(folder) if c.isdigit())
    return int(digits or 0)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Make a cluster in a temporary folder and serve it; both are gone at the end."""
    folder = programs()
    # Not in pytest's own folder: the account that PostgreSQL runs under may not enter that.
    home = Path(tempfile.mkdtemp(prefix="otel-shim-pg-"))
    account = _account()
    try:
        if "user" in account:
            os.chown(home, account["user"], account["group"])
        (port,) = free_ports(1)
        made = Cluster(port, secrets.token_urlsafe(18), home / "log/postgresql.csv")
        _initialise(folder, home, made, account)
        with _serving(folder, home, made, account):
            yield made
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _account() -> dict[str, Any]:
    """The server refuses to run as root: then it runs as the account that its package made."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(ACCOUNT)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _initialise(folder: Path, home: Path, made: Cluster, account: dict[str, Any]) -> None:
    secret = home / "password"
    secret.write_text(made.password)
    if "user" in account:
        os.chown(secret, account["user"], account["group"])
    argv = (
        *(str(folder / "initdb"), "--pgdata", str(home / "data"), "--username", USER),
        *("--auth", "scram-sha-256", "--pwfile", str(secret), "--no-sync", "--encoding", "UTF8"),
        *("--locale", "C"),
    )
    run(argv, {}, cwd=home, **account)


@contextmanager
def _serving(folder: Path, home: Path, made: Cluster, account: dict[str, Any]) -> Iterator[None]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(made.port),
        "unix_socket_directories": str(home),
        "fsync": "off",
        "logging_collector": "on",
        "log_destination": "csvlog",
        "log_directory": str(made.log.parent),
        "log_filename": "postgresql.log",
        "log_rotation_age": "0",
        "log_rotation_size": "0",
        "log_statement": "all",
        "log_parameter_max_length": "0",
    }
    argv = [str(folder / "postgres"), "-D", str(home / "data")]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    output = home / "output"
    with output.open("wb") as stream:
        server = subprocess.Popen(
            argv,
            cwd=home,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **account,
        )
    try:
        _wait_ready(folder, made, server, output)
        run(
            (str(folder / "createdb"), *_address(made), "--username", USER, DATABASE),
            {"PGPASSWORD": made.password},
            cwd=home,
        )
        yield
    finally:
        _stop(server)


def _address(made: Cluster) -> tuple[str, ...]:
    return "--host", "127.0.0.1", "--port", str(made.port)


def _wait_ready(folder: Path, made: Cluster, server: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    argv = (str(folder / "pg_isready"), "--quiet", *_address(made))
    while subprocess.run(argv, check=False, env=clean_environment()).returncode:
        text = output.read_text(errors="replace")
        assert server.poll() is None, f"PostgreSQL ended: {text}"
        assert time.monotonic() < deadline, f"PostgreSQL did not start: {text}"
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Fast: sessions are ended, not waited for."""
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait(STOP_SECONDS)
