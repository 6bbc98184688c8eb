"""``otel-shim find``: traces by request, trace, organisation or user, from Jaeger or Tempo."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from types import ModuleType
from typing import Any, TypeVar

from opentelemetry.semconv._incubating.attributes.user_attributes import USER_HASH

from otel_shim import _semconv as semconv
from otel_shim.cli import jaeger, tempo, traces
from otel_shim.cli.answers import BackendError, printable
from otel_shim.cli.traces import Backend, Question, Span, Trace

_BACKENDS: dict[str, ModuleType] = {"jaeger": jaeger, "tempo": tempo}
_MOST = 1000
_WHO = {
    semconv.SAAS_ORG_ID: "org",
    USER_HASH: "user",
    semconv.SAAS_ACTOR_TYPE: "actor",
    semconv.SAAS_ACTOR_ROLE: "role",
    semconv.SAAS_REQUEST_ID: "request",
}
_COLUMNS = ("TIME (UTC)", "DURATION", "STATUS", "ORGANISATION", "SERVICE", "ROOT SPAN", "LINK")
_T = TypeVar("_T")


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "find",
        help="find traces by who they are for",
        description="Exits with 0 when traces were found, 1 when none were, 2 when it cannot be told.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--request", metavar="ID", type=_checked(traces.by_request))
    what.add_argument("--trace", metavar="ID", type=_checked(traces.trace_id))
    what.add_argument("--org", metavar="ID", type=_checked(traces.by_organisation))
    what.add_argument("--user", metavar="HASH", type=_checked(traces.by_user))
    parser.add_argument("--backend", choices=sorted(_BACKENDS), default="jaeger")
    parser.add_argument("--url", type=_checked(traces.base_url), help="where its HTTP API is")
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--tree", action="store_true", help="also the spans of each trace")
    parser.set_defaults(run=run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--service", type=_checked(traces.service), help="look only at this service"
    )
    parser.add_argument(
        "--since",
        type=_checked(traces.seconds),
        default="1h",
        help="how far back: 90s, 15m, 1h, 7d",
    )
    parser.add_argument("--limit", type=_checked(_limit), default="20", help="traces at most")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        type=_checked(traces.header),
        help="a header to send along, such as X-Scope-OrgID or Authorization",
    )


def _checked(check: Callable[[str], _T]) -> Callable[[str], _T]:
    """A check as argparse takes it: its error becomes the usage error."""

    def convert(text: str) -> _T:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= _MOST:
        raise traces.Unusable(f"write a number from 1 to {_MOST}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Ask, write, and give the exit code."""
    kind = _BACKENDS[arguments.backend]
    backend = Backend(arguments.url or kind.DEFAULT_URL, dict(arguments.header))
    question = _question(arguments)
    try:
        answers: Sequence[Trace] = kind.find(backend, question)
    except BackendError as error:
        sys.stderr.write(f"otel-shim find: {error}\n")
        return 2
    found = sorted(answers, key=lambda trace: -trace.spans[0].start_us)[: question.limit]
    text = _as_json(found, arguments.tree) if arguments.json else _as_text(found, arguments.tree)
    sys.stdout.write(f"{text}\n")
    return 0 if found else 1


def _question(arguments: argparse.Namespace) -> Question:
    chosen = arguments.request or arguments.org or arguments.user
    attribute, value = chosen or (None, arguments.trace)
    return Question(attribute, value, arguments.since, arguments.limit, arguments.service)


def _as_json(found: Sequence[Trace], tree: bool) -> str:
    return json.dumps({"traces": [_summary(trace, tree) for trace in found]}, indent=2)


def _summary(trace: Trace, tree: bool) -> dict[str, Any]:
    root = trace.root()
    summary = {
        "trace_id": trace.trace_id,
        "start": _instant(trace).isoformat(),
        "duration_ms": trace.duration_us() / 1000,
        "service": root.service,
        "root": root.name,
        "organisations": trace.organisations(),
        "status": "error" if trace.failed() else "ok",
        "link": trace.link,
    }
    return {**summary, "spans": [_plain(span) for span in trace.spans]} if tree else summary


def _plain(span: Span) -> dict[str, Any]:
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "service": span.service,
        "name": span.name,
        "duration_ms": span.duration_us / 1000,
        "status": "error" if span.failed else "ok",
        "identity": {key: span.attributes[key] for key in _WHO if key in span.attributes},
    }


def _instant(trace: Trace) -> datetime:
    return datetime.fromtimestamp(trace.spans[0].start_us / 1e6, timezone.utc)


def _as_text(found: Sequence[Trace], tree: bool) -> str:
    if not found:
        return "no traces; --since looks further back"
    if tree:
        return "\n\n".join("\n".join(_tree(trace)) for trace in found)
    rows = [_COLUMNS, *(_row(trace) for trace in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )


def _row(trace: Trace) -> tuple[str, ...]:
    root = trace.root()
    return (
        f"{_instant(trace):%Y-%m-%d %H:%M:%S}",
        _duration(trace.duration_us()),
        "error" if trace.failed() else "ok",
        printable(",".join(trace.organisations()) or "-")[:40],
        printable(root.service)[:30],
        printable(root.name)[:60],
        trace.link,
    )


def _duration(microseconds: int) -> str:
    if microseconds < 1000:
        return f"{microseconds} us"
    return f"{microseconds / 1000:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.2f} s"


def _tree(trace: Trace) -> Iterator[str]:
    yield f"{trace.link}  {_instant(trace):%Y-%m-%d %H:%M:%S}  {_duration(trace.duration_us())}"
    for lasts, span in trace.outline():
        yield f"{_branch(lasts)}{_line(span)}"


def _branch(lasts: Sequence[bool]) -> str:
    if not lasts:
        return ""
    above = "".join("   " if last else "│  " for last in lasts[:-1])
    return above + ("└─ " if lasts[-1] else "├─ ")


def _line(span: Span) -> str:
    who = [f"{_WHO[k]}={span.attributes[k]}" for k in _WHO if k in span.attributes]
    parts = [span.name, f"[{span.service}]", _duration(span.duration_us), "ERROR" * span.failed]
    return printable("  ".join([*filter(None, parts), " ".join(who) or "(nobody)"]))
