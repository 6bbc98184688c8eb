"""``otel-shim``: doctor (what is wrong here), find (somebody's traces), alert-relay (ids in alerts)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version

from otel_shim.cli.alert_relay import add_to as add_alert_relay
from otel_shim.cli.doctor import add_to as add_doctor
from otel_shim.cli.find import add_to as add_find


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 = fine, 1 = problems or nothing found, 2 = usage or an unusable backend."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:  # the reader, such as head, has seen enough
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="otel-shim", description=__doc__)
    parser.add_argument("--version", action="version", version=f"otel-shim {version('otel-shim')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    add_doctor(commands)
    add_find(commands)
    add_alert_relay(commands)
    return parser
