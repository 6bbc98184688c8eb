"""``otel-shim doctor``: load this environment in a fresh process, and say what is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from otel_shim.cli import commands, diagnosis, packages, workers
from otel_shim.cli.commands import Command
from otel_shim.cli.masking import MASK
from otel_shim.cli.observation import (
    ERROR,
    INFO,
    WARNING,
    Choice,
    Exporter,
    Finding,
    Observation,
    Trial,
    decode,
)

_TIMEOUT = 120
"""Seconds for loading, importing the application and trying the endpoints."""
_ORDER = (ERROR, WARNING, INFO)


class LoadingFailed(Exception):
    """The child process gave no observation; the text says what it said instead."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="say what is wrong with this environment",
        description=(
            "Loads OpenTelemetry in a fresh process as opentelemetry-instrument would, and says what was "
            "loaded, what was not and why. With a command, also imports the application that it serves. "
            "Exits with 0 when nothing is wrong, 1 when something is, 2 when it cannot be told."
        ),
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("command", nargs="*", help="after --: how the application is started")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine, report, and give the exit code."""
    command = commands.parse(arguments.command, os.environ)
    try:
        seen = observe(os.environ, command)
    except LoadingFailed as error:
        sys.stderr.write(f"otel-shim doctor: {error}\n")
        return 2
    found = _examine(seen, arguments.command, command)
    healthy = all(finding.severity == INFO for finding in found)
    text = _as_json(seen, found, healthy) if arguments.json else "\n".join(_as_text(seen, found))
    sys.stdout.write(f"{text}\n")
    return 0 if healthy else 1


def _examine(seen: Observation, words: Sequence[str], command: Command) -> list[Finding]:
    found = [
        *diagnosis.findings(seen),
        *packages.findings(packages.installed()),
        *workers.findings(words, command, seen.executable, seen.exporters),
    ]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def observe(environ: Mapping[str, str], command: Command) -> Observation:
    """What a fresh process of this interpreter sees; raises LoadingFailed where it ends without a word."""
    with tempfile.TemporaryDirectory(prefix="otel-shim-") as folder:
        report = Path(folder) / "observation.json"
        target = command.target()
        named = [target, command.folder(), *command.paths()] if target else []
        said = _run_child([str(report), *named], environ)
        if not report.exists():
            raise LoadingFailed(f"loading ended without a report: {said}")
        seen: Observation = decode(Observation, json.loads(report.read_text("utf-8")))
        return seen


def _run_child(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run the observer; returns the last line of what it said."""
    command = [sys.executable, "-m", "otel_shim.cli.observer", *arguments]
    try:
        done = subprocess.run(
            command,
            env=_unlaunched(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {_TIMEOUT} s"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {done.returncode}"


def _unlaunched(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the launcher's directory: the child loads once, under observation."""
    spec = find_spec("opentelemetry.instrumentation.auto_instrumentation")
    launcher = str(Path(spec.origin).parent) if spec is not None and spec.origin else ""
    path = [p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != launcher]
    return {**environ, "PYTHONPATH": os.pathsep.join(path)}


def _as_json(seen: Observation, found: Sequence[Finding], healthy: bool) -> str:
    report = {"healthy": healthy, "findings": [asdict(f) for f in found], "observed": asdict(seen)}
    return json.dumps(report, indent=2)


def _as_text(seen: Observation, found: Sequence[Finding]) -> Iterator[str]:
    problems = sum(finding.severity != INFO for finding in found)
    yield f"otel-shim doctor: {problems or 'no'} problem{'s' * (problems != 1)}"
    for finding in found:
        yield ""
        yield from _lines(f"{finding.severity:8} {finding.code}: {finding.cause}")
        yield from _lines(f"{'':8} fix: {finding.fix}")
    yield ""
    for name, value in _facts(seen):
        yield from _lines(f"{name:13} {value}", indent=14)


def _lines(text: str, indent: int = 9) -> list[str]:
    return textwrap.wrap(
        text, 110, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _facts(seen: Observation) -> Iterator[tuple[str, str]]:
    yield "python", f"{seen.python} ({seen.executable})"
    yield "service", seen.service_name or "none"
    yield "distro", _choice(seen.distro, "OTEL_PYTHON_DISTRO")
    yield "configurator", _choice(seen.configurator, "OTEL_PYTHON_CONFIGURATOR")
    for one in seen.instrumentors:
        detail = f": {one.detail}" if one.detail else f" ({one.distribution} {one.version})"
        yield "instrumentor", f"{one.name} {one.state}{detail}"
    for exporter in seen.exporters:
        yield "exporter", _exporter(exporter)
    yield from _tried(seen.trial)
    yield "key", " ".join(filter(None, (seen.key.state, seen.key.where, seen.key.mode)))
    yield "protobuf", seen.protobuf or "not installed"
    yield "sources", f"{len(seen.sources)} configured"
    if seen.app is not None and not seen.app.problem:
        names = dict.fromkeys(s.split(":")[-1].split(".")[0] for s in diagnosis.matching(seen))
        yield (
            "application",
            f"{seen.app.target}; identity from {', '.join(names) or 'no dependency'}",
        )


def _choice(choice: Choice, variable: str) -> str:
    won = choice.won() or choice.winner or "none"
    asked = f"{variable}={choice.asked}" if choice.asked is not None else f"{variable} is not set"
    others = [str(c) for c in choice.candidates if c.value != choice.winner]
    return f"{won}; {asked}; {'beside ' + ', '.join(others) if others else 'no other is installed'}"


def _exporter(exporter: Exporter) -> str:
    state = exporter.detail or ("answers" if exporter.endpoint else "not tried")
    headers = "".join(f", {name}={MASK}" for name in exporter.headers)
    return f"{exporter.signal} to {exporter.endpoint or exporter.kind}: {state}{headers}"


def _tried(trial: Trial) -> Iterator[tuple[str, str]]:
    for work, spans in (("a request", trial.request_spans), ("a query", trial.query_spans)):
        if spans is not None:
            yield "tried", f"{work} gave {', '.join(spans) or 'no span'}"
    if trial.log_records is not None:
        yield "tried", f"a log record was sent {trial.log_records} time(s)"
