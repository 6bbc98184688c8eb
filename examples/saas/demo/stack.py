"""Processes: start, wait until they serve, stop. Everything binds to loopback."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

POLL_SECONDS = 0.1
STOP_SECONDS = 15.0
RUN_SECONDS = 60.0
TAIL_LINES = 25
# Settings of the caller's shell that would redirect what the demo starts.
FOREIGN_PREFIXES = ("OTEL_", "SAAS_", "PYTHON", "FASTAPI_", "VIRTUAL_ENV", "UVICORN_", "WEB_")


class PartError(Exception):
    """One named part of the demo did not do what it should."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part


@dataclass(frozen=True, slots=True)
class Part:
    """One program: how to start it and how to see that it serves.

    `ready_url` must answer with 200; with `ready_body` it is asked by POST.
    """

    name: str
    argv: tuple[str, ...]
    ready_url: str
    ready_body: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A started program."""

    part: Part
    process: subprocess.Popen[bytes]
    log: Path


def clean_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without what would change how the parts behave."""
    return {k: v for k, v in environ.items() if not k.startswith(FOREIGN_PREFIXES)}


def tail(log: Path) -> str:
    """The last lines of a log."""
    lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(f"    | {line[:200]}" for line in lines)


class Stack:
    """Programs that run together; made by `running`, which stops them.

    Each gets its own process group, so that Ctrl-C in a terminal reaches the demo alone and the
    parts are stopped in order, each with time to send what it holds.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.running: list[Running] = []

    def start(self, part: Part) -> Running:
        """Start a program with its output in `<out>/<name>.log`; does not wait."""
        log = self.out / f"{part.name}.log"
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    part.argv,
                    cwd=self.out,
                    env=clean_environment() | dict(part.env),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise PartError(part.name, f"cannot run {part.argv[0]}: {error}") from error
        started = Running(part, process, log)
        self.running.append(started)
        return started

    def wait_ready(self, seconds: float) -> None:
        """Wait until every program serves; `PartError` names the one that does not."""
        deadline = time.monotonic() + seconds
        for running in self.running:
            while not is_ready(running.part):
                self.check_alive()
                if time.monotonic() > deadline:
                    raise failed(running, f"did not serve within {seconds:.0f} s")
                time.sleep(POLL_SECONDS)

    def check_alive(self) -> None:
        """Raise `PartError` when a program has ended by itself."""
        for running in self.running:
            code = running.process.poll()
            if code is not None:
                raise failed(running, f"ended with exit code {code}")

    def failed(self, name: str, what: str) -> PartError:
        """The error to raise for the program of this name."""
        return next(failed(running, what) for running in self.running if running.part.name == name)

    def end(self, name: str) -> None:
        """Stop the programs of this name; the others go on."""
        for running in [each for each in self.running if each.part.name == name]:
            stop(running)
            self.running.remove(running)

    def stop(self) -> None:
        """Stop everything, the last started first; an interruption ends the rest at once."""
        try:
            for running in reversed(self.running):
                stop(running)
        except KeyboardInterrupt:
            for running in self.running:
                kill(running)
            raise
        finally:
            self.running.clear()


@contextmanager
def running(out: Path) -> Iterator[Stack]:
    """A stack whose logs go to `out`; whatever it started is stopped at the end."""
    out.mkdir(parents=True, exist_ok=True)
    stack = Stack(out)
    try:
        yield stack
    finally:
        stack.stop()


def run_once(name: str, argv: tuple[str, ...], cwd: Path, env: Mapping[str, str]) -> None:
    """Run a program to its end; `PartError` with its output when it fails."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=clean_environment() | dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RUN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartError(name, f"cannot run {argv[0]}: {error}") from error
    if done.returncode:
        raise PartError(name, f"exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def is_ready(part: Part) -> bool:
    """Ask once."""
    try:
        if part.ready_body is None:
            answer = httpx.get(part.ready_url, timeout=2)
        else:
            headers = {"content-type": "application/json"}
            answer = httpx.post(part.ready_url, content=part.ready_body, headers=headers, timeout=2)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


def stop(running: Running) -> None:
    """Ask a program to end; after a while end it and what it started."""
    if running.process.poll() is None:
        running.process.terminate()
    try:
        running.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        kill(running)


def kill(running: Running) -> None:
    """End a program and what it started, at once."""
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()


def failed(running: Running, what: str) -> PartError:
    """The error to raise for a program, with the end of its log."""
    return PartError(running.part.name, f"{what}; end of {running.log}:\n{tail(running.log)}")
