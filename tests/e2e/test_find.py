"""`otel-shim find` over a real Jaeger, and over a server that speaks Tempo's documented HTTP API.

Tempo itself is a program of its own that these tests do not start. The server here keeps OTLP spans, answers
``/api/search`` by really reading the TraceQL it gets, as Tempo's grammar reads strings, and
``/api/traces/<id>`` with ids in base64, as Tempo writes them.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from examples.saas.demo import parts
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import running
from otel_shim.request_ids import new as new_request_id
from tests.wheel import ROOT

from .server import eventually, serving

SERVICE = "shop"
USER_HASH = "Ab3_-z." + "h" * 43
ORG = 'acme "& Söhne\\ || true'
"""An organisation whose id would end a carelessly quoted query."""
OTHER_ORG = "org-2"
REQUEST = new_request_id()
TRACES = (0xABC, 0xDEF)
STARTED = time.time_ns() // 1_000_000 * 1_000_000


def _attributes(**values: str) -> list[dict[str, Any]]:
    return [{"key": k.replace("__", "."), "value": {"stringValue": v}} for k, v in values.items()]


def _span(trace: int, span: int, parent: int, name: str, **more: Any) -> dict[str, Any]:
    now = STARTED + span * 1_000_000
    return {
        "traceId": f"{trace:032x}",
        "spanId": f"{span:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name,
        "kind": 2,
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 12_500_000),
        **more,
    }


def otlp() -> dict[str, Any]:
    """Two traces: one with a failed child and one of another organisation."""
    who = _attributes(saas__org__id=ORG, user__hash=USER_HASH, saas__request__id=REQUEST)
    other = _attributes(saas__org__id=OTHER_ORG)
    spans = [
        _span(TRACES[0], 1, 0, "GET /orders", attributes=who),
        _span(TRACES[0], 2, 1, "SELECT shop", attributes=who, status={"code": 2}),
        _span(TRACES[0], 3, 1, "render \x1b[31m", attributes=[]),
        _span(TRACES[1], 4, 0, "GET /health", attributes=other),
    ]
    resource = {"attributes": _attributes(service__name=SERVICE)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}


@dataclass(frozen=True)
class Target:
    """A backend that holds the traces."""

    kind: str
    url: str


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A real Jaeger with the traces in it."""
    out = tmp_path_factory.mktemp("jaeger")
    ports = parts.choose_ports()
    with running(out) as stack:
        stack.start(parts.jaeger(parts.Places(ROOT / ".build/bin", out, out, out), ports))
        stack.wait_ready(60)
        url = parts.url(ports.jaeger_query)
        _send(parts.url(ports.jaeger_http), url)
        yield Target("jaeger", url)


def _send(otlp_url: str, url: str) -> None:
    httpx.post(f"{otlp_url}/v1/traces", json=otlp(), timeout=30).raise_for_status()

    def stored() -> bool:
        ids = (f"{trace:032x}" for trace in TRACES)
        return all(httpx.get(f"{url}/api/traces/{i}").status_code == 200 for i in ids)

    eventually(stored, 30, "Jaeger has the traces")


_STRING = r'"(?:[^"\\]|\\.)*"'
_QUERY = re.compile(
    rf"\{{ \.(?P<key>[\w.]+) = (?P<value>{_STRING})(?: && resource\.service\.name = (?P<service>{_STRING}))? \}}"
)


@dataclass
class Tempo:
    """What the server was asked."""

    queries: list[str] = field(default_factory=list)
    tenants: list[str | None] = field(default_factory=list)


def _spans() -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = otlp()["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return spans


class _TempoHandler(BaseHTTPRequestHandler):
    asked: Tempo

    def do_GET(self) -> None:
        self.asked.tenants.append(self.headers.get("X-Scope-OrgID"))
        parts = urlsplit(self.path)
        if parts.path == "/api/search":
            self._search(parse_qs(parts.query))
        elif (match := re.fullmatch(r"/api/traces/([0-9a-f]{32})", parts.path)) is not None:
            self._trace(match[1])
        else:
            self._answer(404, {})

    def _search(self, query: dict[str, list[str]]) -> None:
        (q,) = query["q"]
        self.asked.queries.append(q)
        match = _QUERY.fullmatch(q)
        if match is None:
            return self._answer(400, {"message": f"parse error: {q}"})
        value = re.sub(r"\\(.)", r"\1", match["value"][1:-1])
        wanted = {"key": match["key"], "value": {"stringValue": value}}
        ids = {span["traceId"] for span in _spans() if wanted in span["attributes"]}
        if match["service"] not in (None, f'"{SERVICE}"'):
            ids = set()
        found = [{"traceID": i.lstrip("0"), "rootTraceName": "x"} for i in sorted(ids)]
        return self._answer(200, {"traces": found[: int(query["limit"][0])], "metrics": {}})

    def _trace(self, trace_id: str) -> None:
        spans = [_in_base64(span) for span in _spans() if span["traceId"] == trace_id]
        resource = {"attributes": _attributes(service__name=SERVICE)}
        batch = {"resource": resource, "scopeSpans": [{"spans": spans}]}
        self._answer(200 if spans else 404, {"batches": [batch]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests clean."""


def _in_base64(span: dict[str, Any]) -> dict[str, Any]:
    ids = {
        k: base64.b64encode(bytes.fromhex(span[k])).decode()
        for k in ("traceId", "spanId", "parentSpanId")
    }
    status = {"status": {"code": "STATUS_CODE_ERROR"}} if "status" in span else {}
    return {**span, **ids, **status}


@pytest.fixture(scope="module")
def tempo() -> Iterator[tuple[Target, Tempo]]:
    """A server that speaks Tempo's API."""
    asked = Tempo()
    handler = type("Handler", (_TempoHandler,), {"asked": asked})
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        yield Target("tempo", parts.url(port)), asked


@pytest.fixture(params=["jaeger", "tempo"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each backend in turn."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, Target) else found[0]


def find(target: Target, *options: str) -> subprocess.CompletedProcess[str]:
    """One run of the program."""
    command = [sys.executable, "-m", "otel_shim.cli", "find"]
    return subprocess.run(
        [*command, "--backend", target.kind, "--url", target.url, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _found(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    traces: list[dict[str, Any]] = json.loads(done.stdout)["traces"]
    return traces


@pytest.mark.parametrize(
    "who",
    [
        ("--request", REQUEST),
        ("--trace", f"{TRACES[0]:032X}"),
        ("--org", ORG),
        ("--user", USER_HASH),
    ],
    ids=["request", "trace", "org", "user"],
)
def test_found_by_who(target: Target, who: tuple[str, str]) -> None:
    """Exactly the one trace, with what a list shows."""
    (trace,) = _found(find(target, *who, "--json"))
    del trace["start"]
    path = "trace" if target.kind == "jaeger" else "api/traces"
    assert trace == {
        "trace_id": f"{TRACES[0]:032x}",
        "duration_ms": 14.5,
        "service": SERVICE,
        "root": "GET /orders",
        "organisations": [ORG],
        "status": "error",
        "link": f"{target.url}/{path}/{TRACES[0]:032x}",
    }


def test_tree_shows_identity_and_steers_no_terminal(target: Target) -> None:
    """Each span below its parent; one without identity is seen to have none."""
    text = find(target, "--request", REQUEST, "--tree").stdout
    lines = text.splitlines()
    assert lines[1].startswith("GET /orders  [shop]  12.5 ms  ")
    assert (
        f"org={ORG}" in lines[1]
        and f"user={USER_HASH}" in lines[1]
        and f"request={REQUEST}" in lines[1]
    )
    assert lines[2].startswith("├─ SELECT shop  [shop]  12.5 ms  ERROR  ")
    assert lines[3].startswith("└─ render \N{REPLACEMENT CHARACTER}[31m  [shop]") and lines[
        3
    ].endswith("(nobody)")
    assert "\x1b" not in text


def test_list_is_a_table(target: Target) -> None:
    """A line for each trace, with its link."""
    lines = find(target, "--org", OTHER_ORG).stdout.splitlines()
    heads = re.split(r"  +", lines[0])
    assert heads == [
        *("TIME (UTC)", "DURATION", "STATUS", "ORGANISATION", "SERVICE", "ROOT SPAN", "LINK")
    ]
    assert lines[1].split()[2:] == [
        *("12.5", "ms", "ok", OTHER_ORG, SERVICE, "GET", "/health"),
        lines[1].split()[-1],
    ]
    assert len(lines) == 2


def test_nothing_found_is_said(target: Target) -> None:
    """Exit code 1: neither success nor a fault."""
    for options in (
        ("--org", "org-9"),
        ("--trace", "f" * 32),
        ("--org", OTHER_ORG, "--service", "nobody"),
    ):
        done = find(target, *options)
        assert (done.returncode, done.stderr) == (1, ""), options
        assert "no traces" in done.stdout


def test_traceql_cannot_be_injected(tempo: tuple[Target, Tempo]) -> None:
    """What was asked for arrives as one string of one condition."""
    target, asked = tempo
    asked.queries.clear()
    assert find(target, "--org", ORG).returncode == 0
    assert asked.queries == ['{ .saas.org.id = "acme \\"& Söhne\\\\ || true" }']
    assert find(target, "--org", '" } || { true } | select("').returncode == 1
    for bad in ("a\nb", "", "x" * 257):
        assert find(target, "--org", bad).returncode == 2


def test_headers_are_sent_along(tempo: tuple[Target, Tempo]) -> None:
    """A tenant for Tempo, in the search and for each trace."""
    target, asked = tempo
    asked.tenants.clear()
    assert find(target, "--org", ORG, "--header", "X-Scope-OrgID: team-1").returncode == 0
    assert asked.tenants == ["team-1", "team-1"]


class _Garbage(BaseHTTPRequestHandler):
    body = b""
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests clean."""


@pytest.mark.parametrize("kind", ["jaeger", "tempo"])
@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"<html>\x1b[31mhello</html>", "did not answer with JSON"),
        (200, b"[1, 2]", "does not answer as"),
        (
            200,
            b'{"data": [{"spans": [7]}], "traces": [{"traceID": "../../x"}]}',
            "does not answer as",
        ),
        (500, b'{"errors": [{"msg": "out of disk"}]}', "out of disk"),
        (401, b"who are you", "--header"),
        (302, b"", "leads elsewhere"),
    ],
)
def test_unusable_answers_are_named(kind: str, status: int, body: bytes, says: str) -> None:
    """Exit code 2, one line, no traceback, nothing that steers a terminal."""
    handler = type("Handler", (_Garbage,), {"status": status, "body": body})
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        done = find(Target(kind, parts.url(port)), "--org", ORG)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["jaeger", "tempo"])
def test_a_backend_that_is_away_is_named(kind: str) -> None:
    """Its address and the reason."""
    (port,) = free_ports(1)
    done = find(Target(kind, parts.url(port)), "--org", ORG)
    assert done.returncode == 2
    assert (
        done.stderr == f"otel-shim find: {parts.url(port)} cannot be reached: Connection refused\n"
    )
