"""``otel-shim alert-relay``: says in each alert which request and which trace show what it is about."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_LINKS = {"jaeger": "{url}/trace/{{trace_id}}", "tempo": "{url}/api/traces/{{trace_id}}"}
_MOST_SECONDS = 1.6


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "alert-relay",
        help="stand between Prometheus and Alertmanager and add request and trace ids to alerts",
        description="Speaks Alertmanager's API v2. Needs the extra otel-shim[relay].",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9095)
    parser.add_argument(
        "--alertmanager",
        action="append",
        required=True,
        metavar="URL",
        help="every one of a cluster: repeat the option",
    )
    parser.add_argument("--prometheus", metavar="URL", help="where exemplars are asked for")
    parser.add_argument(
        "--traces", metavar="URL", help="where traces are searched without exemplars"
    )
    parser.add_argument("--traces-kind", choices=sorted(_LINKS), default="jaeger")
    parser.add_argument(
        "--trace-link", metavar="URL", help="address of a trace, with {trace_id} in it"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("alert-relay.sqlite"),
        help="file that keeps ids until an alert has ended",
    )
    parser.add_argument(
        "--budget",
        type=_budget,
        default=1.2,
        metavar="SECONDS",
        help=f"how long look-ups may hold alerts, at most {_MOST_SECONDS:g} (default: 1.2)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; 2 when the extra is not installed."""
    try:
        from otel_shim.relay import server  # noqa: PLC0415 - only this command needs a web server
        from otel_shim.relay.model import Settings  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"{missing.name} is missing: install otel-shim with its extra `relay`\n")
        return 2
    settings = Settings(
        alertmanagers=tuple(url.rstrip("/") for url in arguments.alertmanager),
        prometheus=_base(arguments.prometheus),
        traces=_base(arguments.traces),
        traces_kind=arguments.traces_kind,
        trace_link=arguments.trace_link or _default_link(arguments),
        state=arguments.state,
        budget=arguments.budget,
    )
    server.serve(settings, arguments.host, arguments.port)
    return 0


def _budget(text: str) -> float:
    """Seconds; with the rest of the way an alert is to be held for less than two."""
    seconds = float(text)
    if not 0 < seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"not above 0 and up to {_MOST_SECONDS:g}: {text}")
    return seconds


def _base(url: str | None) -> str | None:
    return None if url is None else url.rstrip("/")


def _default_link(arguments: argparse.Namespace) -> str | None:
    base = _base(arguments.traces)
    return None if base is None else _LINKS[arguments.traces_kind].format(url=base)
