"""Processes that are ended by SIGTERM: the last batch arrives, and they end exactly as without us."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Stack, clean_environment

from . import collectors, otlp, server
from .apps.people import PEOPLE
from .environments import Environment

AT_ITS_END = "600000"
"""A delay of batches so long that only the end of the process sends them."""
DEADLINE = 60.0
WORK = """
import logging, os, re, signal, sys, threading, time
from opentelemetry import trace
logging.basicConfig(level=logging.INFO)
{before}
with trace.get_tracer("script").start_as_current_span("work"):
    logging.getLogger("script").error("halfway")
print("ready", flush=True)
{wait}
"""
WAITING = "threading.Event().wait()"
OWN = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
CHAINED = """
def handle(signum, frame):
    if callable(previous):
        previous(signum, frame)
    sys.exit(9)
previous = signal.signal(signal.SIGTERM, handle)
"""
ENDING_IN_TURN = """
def handle(signum, frame):
    previous(signum, frame) if callable(previous) else sys.exit(143)
previous = signal.signal(signal.SIGTERM, handle)
"""
"""What was there before ends the process, if there was anything."""
RESTORING = """
def handle(signum, frame):
    signal.signal(signum, previous)
    signal.raise_signal(signum)
previous = signal.signal(signal.SIGTERM, handle)
"""
"""As uvicorn does it."""
REFUSED = """
def error(function, *args, **named):
    try:
        function(*args, **named)
    except Exception as refused:
        return repr(refused)
def elsewhere():
    for handler in (signal.SIG_DFL, print):
        found.append(error(signal.signal, signal.SIGTERM, handler))
cases = [(signal.SIGTERM, "no handler"), ("x", signal.SIG_DFL), (9, signal.SIG_DFL), (10**9, print), (signal.SIGTERM,)]
found = [error(signal.signal, *case) for case in cases]
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
before = [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGUSR1)]
after = [signal.getsignal(signalnum=number) for number in (signal.SIGINT, signal.SIGUSR1)]
named = [signal.signal(signalnum=signal.SIGTERM, handler=signal.SIG_IGN), signal.getsignal(signal.SIGTERM)]
again = [signal.signal(signal.SIGTERM, signal.SIG_DFL), signal.signal(signal.SIGTERM, int(signal.SIG_DFL))]
print("said", re.sub("0x[0-9a-f]+", "", repr([found, before, after, named, again])), flush=True)
"""
POLITE = """
if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(8))
"""
IN_A_CHILD = """
import multiprocessing
def child(ready):
    with trace.get_tracer("script").start_as_current_span("in the child"):
        logging.getLogger("script").error("in the child")
    ready.set()
    time.sleep(600)
ready = multiprocessing.get_context("fork").Event()
process = multiprocessing.get_context("fork").Process(target=child, args=(ready,))
process.start()
ready.wait()
process.terminate()
process.join()
print("child", process.exitcode, flush=True)
"""


@contextlib.contextmanager
def started(
    environment: Environment, sink: str, before: str = "", wait: str = WAITING, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """A script under the launcher, which waits once it has done its work."""
    delays = dict.fromkeys(("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"), AT_ITS_END)
    argv = [
        *(environment.program("opentelemetry-instrument"), environment.program("python"), "-c"),
        WORK.format(before=before, wait=wait),
    ]
    process = subprocess.Popen(
        argv,
        env={**clean_environment(), **server.telemetry("script", sink), **delays, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], word: str) -> str:
    """The output up to the line with this word; a process that does not say it in time is ended."""
    assert process.stdout is not None
    said = ""
    limit = threading.Timer(DEADLINE, process.kill)
    limit.start()
    try:
        for line in process.stdout:
            said += line
            if word in line:
                return said
    finally:
        limit.cancel()
    raise AssertionError(f"{word!r} is not in: {said}")


def ended(process: subprocess.Popen[str]) -> int:
    """Send SIGTERM once it is ready; gives the exit code."""
    until(process, "ready")
    process.send_signal(signal.SIGTERM)
    return process.wait(DEADLINE)


def arrived(sink: collectors.Fake) -> tuple[list[str], list[str]]:
    """Names of spans and texts of records, but for what the shim says of itself."""
    records = (r.text for r in otlp.records(sink) if r.logger == "script")
    return [span.name for span in otlp.spans(sink)], list(records)


@pytest.mark.parametrize(
    "wait", [WAITING, "time.sleep(600)", "while True: pass"], ids=["lock", "sleep", "busy"]
)
def test_a_script_sends_its_last_batch(locked: Environment, wait: str) -> None:
    """Whatever it was doing; its exit code is that of the signal."""
    with collectors.healthy() as sink:
        with started(locked, sink.url, wait=wait) as script:
            assert ended(script) == -signal.SIGTERM
        assert arrived(sink) == (["work"], ["halfway"])


@pytest.mark.parametrize(
    ("before", "code"),
    [
        (OWN, 7),
        (CHAINED, 9),
        (POLITE, 8),
        (ENDING_IN_TURN, 143),
        (RESTORING, -signal.SIGTERM),
        (f"{OWN}\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)", -signal.SIGTERM),
    ],
    ids=["own", "chained", "polite", "ending in turn", "restoring", "default again"],
)
def test_a_handler_of_the_application_is_the_only_one(
    locked: Environment, before: str, code: int
) -> None:
    """Set without a look, calling or restoring what was there before, or only where the default is in place."""
    with collectors.healthy() as sink:
        with started(locked, sink.url, before) as script:
            assert ended(script) == code
        assert arrived(sink) == (["work"], ["halfway"])


def test_handlers_are_set_as_ever(locked: Environment) -> None:
    """Errors, other signals and what is given back are those of an interpreter without us."""
    said = []
    with collectors.healthy() as sink:
        for action in ("flush", "default"):
            with started(locked, sink.url, wait=REFUSED, OTEL_SHIM_ON_SIGTERM=action) as script:
                said.append(until(script, "said").splitlines()[-1])
    assert said[0] == said[1]


def test_it_can_be_switched_off(locked: Environment) -> None:
    """Then nothing is sent: what arrives in the other tests is the handler's work."""
    with collectors.healthy() as sink:
        with started(locked, sink.url, OTEL_SHIM_ON_SIGTERM="default") as script:
            assert ended(script) == -signal.SIGTERM
        assert arrived(sink) == ([], [])


def test_an_ignored_signal_stays_ignored(locked: Environment) -> None:
    """Whoever starts a process may have SIGTERM ignored, which it inherits."""
    shield = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        asking = "print(signal.signal(signal.SIGTERM, signal.SIG_DFL), 'was set')"
        with collectors.healthy() as sink, started(locked, sink.url, wait=asking) as script:
            assert str(signal.SIG_IGN) in until(script, "was set")
    finally:
        signal.signal(signal.SIGTERM, shield)


@pytest.mark.parametrize("broken", ["dead", "silent", "resetting"])
def test_an_absent_collector_does_not_keep_it(locked: Environment, broken: str) -> None:
    """It ends by the signal, without anybody to send to."""
    with collectors.BROKEN[broken]() as sink, started(locked, sink.url) as script:
        assert ended(script) == -signal.SIGTERM


def test_a_second_signal_ends_it_at_once(locked: Environment) -> None:
    """A handler that waits for a silent Collector gives way to the next signal."""
    with collectors.BROKEN["silent"]() as sink, started(locked, sink.url) as script:
        until(script, "ready")
        script.send_signal(signal.SIGTERM)
        server.eventually(lambda: sink.connections > 0, DEADLINE, "it tries to send")
        script.send_signal(signal.SIGTERM)
        assert script.wait(DEADLINE) == -signal.SIGTERM


def test_a_forked_child_ends_likewise(locked: Environment) -> None:
    """``multiprocessing`` ends its children by SIGTERM: the exit code is the same, their batch arrives."""
    with collectors.healthy() as sink:
        with started(locked, sink.url, wait=IN_A_CHILD) as script:
            assert f"child {-signal.SIGTERM}" in until(script, "child -")
            assert script.wait(DEADLINE) == 0
        spans, records = arrived(sink)
    assert sorted(spans) == ["in the child", "work"]
    assert sorted(records) == ["halfway", "in the child"]


FORKED_LATE = """
import multiprocessing
from opentelemetry import _logs, metrics
def flush():
    for provider in (trace.get_tracer_provider(), _logs.get_logger_provider(), metrics.get_meter_provider()):
        provider.force_flush()
def work(number):
    for each in range(20):
        with trace.get_tracer("script").start_as_current_span(f"{number}-{each}"):
            logging.getLogger("script").error(f"{number}-{each}")
        flush()
work("before")
children = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(3)]
for child in children:
    child.start()
work("parent")
for child in children:
    child.join()
print("ready", flush=True)
"""


def test_forked_processes_export_over_connections_of_their_own(locked: Environment) -> None:
    """Parent and children send at the same time, after the parent has connected: all of it can be read."""
    with collectors.healthy() as sink:
        with started(locked, sink.url, wait=FORKED_LATE) as script:
            until(script, "ready")
            until(script, "ready")
            assert script.wait(DEADLINE) == 0
        spans, records = arrived(sink)
    expected = {f"{n}-{each}" for n in ("before", "parent", 0, 1, 2) for each in range(20)}
    assert sorted(spans) == sorted(expected | {"work"})
    assert sorted(records) == sorted(expected | {"halfway"})


FORKED_EARLY = """
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "netrc":
            importing.set()
            time.sleep(0.05)
importing = threading.Event()
sys.modules.pop("netrc", None)
sys.meta_path.insert(0, Slow())
logging.getLogger("script").error("first")
threading.Thread(target=_logs.get_logger_provider().force_flush).start()
importing.wait(10)
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        logging.getLogger("script").error(f"child-{number}")
        flushing = threading.Thread(target=_logs.get_logger_provider().force_flush, daemon=True)
        flushing.start()
        flushing.join(10)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
print("ready", flush=True)
"""


def test_children_forked_during_the_first_request_export_too(locked: Environment) -> None:
    """A module that the parent was importing for it, while it forked, can be imported in the child."""
    with collectors.healthy() as sink:
        with started(
            locked, sink.url, wait="from opentelemetry import _logs" + FORKED_EARLY
        ) as script:
            until(script, "ready")
            until(script, "ready")
            assert script.wait(DEADLINE) == 0
        _, records = arrived(sink)
    assert {"first", *(f"child-{number}" for number in range(3))} <= set(records)


def test_uvicorn_without_lifespan_sends_its_last_batch(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """It hears of no shutdown, and ends by the signal that it was sent."""
    server.fill_database(locked, tmp_path)
    (port,) = free_ports(1)
    delays = dict.fromkeys(("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"), AT_ITS_END)
    with collectors.healthy() as sink:
        env = {
            **server.telemetry("no-lifespan", sink.url),
            **delays,
            "DESK_DATABASE": str(tmp_path / "desk.db"),
        }
        part = server.uvicorn(locked, "apps.desk:app", port, 1, env)
        part = replace(part, argv=(*part.argv, "--lifespan", "off"))
        desk = server.ready(port, stack.start(part))
        assert desk.get("/async", PEOPLE[0].token).status_code == 200
        desk.stop(DEADLINE)
        assert desk.process.process.returncode == -signal.SIGTERM
        routes = [span.attributes.get("http.route") for span in otlp.spans(sink)]
    assert "/async" in routes
