"""What a command line says about worker processes, and about the Python that runs them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from otel_shim.cli.commands import UNKNOWN, Command
from otel_shim.cli.observation import INFO, WARNING, Exporter, Finding

_LAUNCHER = "opentelemetry-instrument"


def findings(
    words: Sequence[str], command: Command, executable: str, exporters: Sequence[Exporter]
) -> Iterator[Finding]:
    """Hints about a command; none where there is no command."""
    if command.server == "gunicorn":
        yield from _preload(command, exporters)
    if command.server:
        yield from _workers(command)
    if words:
        yield from _interpreter(words, executable)


def _preload(command: Command, exporters: Sequence[Exporter]) -> Iterator[Finding]:
    if not command.has("--preload", "preload_app"):
        return
    over_grpc = [e.signal for e in exporters if ".grpc." in e.kind]
    if over_grpc:
        cause = f"gunicorn --preload forks after {', '.join(over_grpc)} opened a gRPC channel, which a fork breaks"
        fix = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        yield Finding(WARNING, "preload-grpc", cause, fix)
    else:
        cause = (
            "gunicorn --preload forks after loading; the SDK starts its threads anew in each worker"
        )
        fix = "nothing, unless the application starts threads or opens connections while it is imported"
        yield Finding(INFO, "preload", cause, fix)


def _workers(command: Command) -> Iterator[Finding]:
    server, count = command.server, command.workers()
    if command.has("--reload", "reload"):
        cause = (
            f"{server} --reload starts a new process for each change, and loads telemetry in each"
        )
        yield Finding(INFO, "reload", cause, "use it for development only")
    if count is UNKNOWN or str(count or 1).strip() != "1":
        many = "as many processes as its configuration file works out"
        started = many if count is UNKNOWN else f"{count} processes"
        cause = (
            f"{server} starts {started}, each of which loads telemetry and has its own instance id"
        )
        fix = "count by service.name where service.instance.id would split a series"
        yield Finding(INFO, "workers", cause, fix)


def _interpreter(command: Sequence[str], executable: str) -> Iterator[Finding]:
    """A program of another environment: what was observed here is not what it will load."""
    words = [word for word in command if Path(word).name != _LAUNCHER]
    program = shutil.which(words[0]) if words else None
    if program is None:
        cause = f"{words[0] if words else _LAUNCHER} is not found on PATH"
        yield Finding(WARNING, "command-not-found", cause, "activate the application's environment")
    elif (other := _python_of(Path(program))) is not None and not _same(other, Path(executable)):
        cause = f"{words[0]} runs under {other}, and this report is about {executable}"
        fix = f"run {other} -m otel_shim.cli doctor"
        yield Finding(WARNING, "other-python", cause, fix)


def _python_of(program: Path) -> Path | None:
    """The interpreter of a Python script or environment; None for another kind of program."""
    if program.name.startswith("python"):
        return program
    with program.open("rb") as file:
        first = file.readline(512)
    if not first.startswith(b"#!") or b"python" not in first:
        return None
    interpreter = Path(first[2:].decode("utf-8", "replace").split()[0])
    return interpreter if "python" in interpreter.name else None


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one environment's interpreter; links to one Python may be two environments."""
    return one.absolute().parent.resolve() == other.absolute().parent.resolve()
