"""A script without any server walks over organisations: each piece of work is its own organisation's."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.saas.demo.jaeger import Span, Trace
from examples.saas.demo.stack import clean_environment

from . import collectors, server
from .apps.nightly import ORGANISATIONS
from .environments import APPS, Environment

SECONDS = 60.0
ONE_LINER = """
import otel_shim
with otel_shim.operation("planning.publish"):
    for org in ("north", "south"):
        with otel_shim.identity(org_id=org, actor_type="job"):
            with otel_shim.operation("planning.publish_one"):
                pass
"""

FULL_QUEUES = """
import logging, sys, otel_shim
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
for _ in range(3000):
    with otel_shim.operation("planning.publish"):
        logging.info("published")
"""


@dataclass(frozen=True)
class Ended:
    """A script that ended: its output and how long it took."""

    output: str
    seconds: float


def script(
    environment: Environment, arguments: tuple[str, ...], env: Mapping[str, str], out: Path
) -> Ended:
    """Run Python under the launcher to its end."""
    launcher = environment.program("opentelemetry-instrument")
    began = time.monotonic()
    done = subprocess.run(
        [launcher, environment.program("python"), *arguments],
        cwd=out,
        env=clean_environment() | {"PYTHONPATH": str(APPS.parent)} | dict(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Ended(done.stdout + done.stderr, time.monotonic() - began)


def arrived(backend: server.Backend, service: str, spans: int) -> list[Trace]:
    """The traces of a service, once they have so many spans."""
    found: list[Trace] = []

    def complete() -> bool:
        found[:] = backend.jaeger.search(service)
        return sum(len(trace.spans) for trace in found) >= spans

    server.eventually(complete, SECONDS, f"Jaeger has {spans} spans of {service}")
    return found


def owners(trace: Trace, name: str) -> Counter[str | None]:
    """Whose the spans of this name are."""
    return Counter(span.tags.get("saas.org.id") for span in trace.spans if span.name == name)


def below(trace: Trace, span: Span) -> Iterator[Span]:
    """Every span under one."""
    for child in trace.children(span):
        yield child
        yield from below(trace, child)


def test_a_few_lines_of_python_are_a_job(
    locked: Environment, backend: server.Backend, tmp_path: Path
) -> None:
    """`python -c` under the launcher: the operation, one span for each organisation, nobody's root."""
    script(locked, ("-c", ONE_LINER), server.telemetry("one-liner", backend.otlp), tmp_path)
    (trace,) = arrived(backend, "one-liner", 3)
    (root,) = trace.roots()
    assert root.name == root.tags["saas.operation"] == "planning.publish"
    assert "saas.org.id" not in root.tags
    assert owners(trace, "planning.publish_one") == Counter(north=1, south=1)
    assert {span.tags.get("saas.actor.type") for span in trace.children(root)} == {"job"}


@dataclass(frozen=True)
class Night:
    """What the nightly job left behind: its traces by the name of their root, and its log."""

    traces: dict[str, Trace]
    lines: list[dict[str, Any]]


@pytest.fixture(scope="module")
def night(
    locked: Environment, backend: server.Backend, tmp_path_factory: pytest.TempPathFactory
) -> Night:
    """Run the nightly job over fifty organisations."""
    out = tmp_path_factory.mktemp("nightly")
    server.fill_database(locked, out)
    env = server.telemetry("nightly", backend.otlp)
    ended = script(locked, ("-m", "apps.nightly"), env, out)
    spans = 3 + 3 * 2 + len(ORGANISATIONS) * (3 + 2)
    traces = {trace.roots()[0].name: trace for trace in arrived(backend, "nightly", spans)}
    return Night(traces, [json.loads(line) for line in ended.output.splitlines()])


@pytest.mark.parametrize(
    ("root", "piece", "queries", "organisations"),
    [
        ("planning.one_by_one", "planning.publish_one", 1, 3),
        ("planning.with_tasks", "planning.count_one", 2, 50),
        ("planning.with_threads", "planning.publish_one", 1, 50),
    ],
)
def test_one_root_walks_over_organisations(
    night: Night, root: str, piece: str, queries: int, organisations: int
) -> None:
    """One by one, with tasks and with threads: each piece and all below it is one organisation's."""
    trace = night.traces[root]
    tenants = ORGANISATIONS[:organisations]
    assert owners(trace, piece) == Counter(tenants)
    for span in trace.spans:
        if span.name == piece:
            inside = list(below(trace, span))
            assert len(inside) == queries
            assert {s.tags["saas.org.id"] for s in inside} == {span.tags["saas.org.id"]}
            assert "saas.identity.origin" not in span.tags
    (top,) = trace.roots()
    assert top.name == root
    assert "saas.org.id" not in top.tags
    assert len(trace.spans) == 1 + organisations * (1 + queries)


def test_pseudonyms_of_a_job_differ_between_organisations(night: Night) -> None:
    """An actor that is no person has a pseudonym, which cannot be linked from one customer to the next."""
    spans = night.traces["planning.with_tasks"].spans
    pairs = {(s.tags.get("saas.org.id"), s.tags.get("saas.actor.hash")) for s in spans}
    named = {pair for pair in pairs if pair[0] is not None}
    assert len(named) == len({pseudonym for _, pseudonym in named}) == len(ORGANISATIONS)
    assert not [span for span in spans if "user.hash" in span.tags]


def test_lines_between_jobs_are_nobodys(night: Night) -> None:
    """Each line names the organisation it was written for, and threads used again name nobody."""
    kinds = Counter(line["message"] for line in night.lines if "for" in line)
    assert kinds == Counter(published=53, counted=50, between=2, idle=16, done=1)
    for line in night.lines:
        if "for" in line:
            assert line.get("saas.org.id") == line["for"], line
            assert ("trace_id" in line) == (line["message"] not in ("idle", "done"))


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_a_job_ends_although_nobody_takes_its_telemetry(
    locked: Environment, tmp_path: Path, kind: str
) -> None:
    """With a Collector that does not answer and every queue full, the end takes seconds, not a minute."""
    with collectors.BROKEN[kind]() as collector:
        env = server.telemetry("unheard", collector.url)
        ended = script(locked, ("-c", FULL_QUEUES), env, tmp_path)
        print(kind, "took", ended.seconds)
    assert ended.seconds < 30
    assert len(server.lines_with(ended.output, "telemetry cannot be exported")) == 1
