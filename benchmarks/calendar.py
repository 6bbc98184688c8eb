"""What telemetry adds to a synchronisation of 1 000 events, as a ratio of CPU time.

    python -m benchmarks.calendar      (in the environment of the calendar tests: `make bench-calendar`)

Two processes do the same work in turns: one as it is, one under `opentelemetry-instrument` with all that it
loads, as for an application: instrumentors of caldav, icalendar, httpx, requests, niquests and retries, identity, logs
and metrics. A real Radicale holds the events. CPU time is that of the whole client process, all threads: the export
over OTLP to another process is in it, flushed at the end of the round. A round takes more than a second: one
synchronisation by a thousand requests, or ``TOGETHER`` of the others, which take a fifth of that. So spans and metrics
are still sent more often than by their timers (5 s and 60 s). Which is first changes, so that what slows the
machine slows both. Printed are the median over pairs of neighbouring rounds, and the ratio of the cheapest rounds.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import caldav
import httpx
import icalendar

from examples.saas.demo.stack import clean_environment
from tests.calendar import servers
from tests.calendar.clients import item

EVENTS = 1000
ROUNDS = int(os.environ.get("ROUNDS", "15"))
TOGETHER = int(os.environ.get("TOGETHER", "5"))
"""Short synchronisations in a round: with 1 each is followed by an export of its own, and the rounds vary more."""
LIMIT = 1.03
PATIENCE = 300
"""Seconds for an answer: the first one, for which the server writes its history, takes long on a busy disk."""
SINK = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_CHILD = "--work"
Work = Callable[[], Any]


@contextmanager
def sink(folder: Path) -> Iterator[str]:
    """A process that takes OTLP and forgets it."""
    port = servers.free_port()
    argv = (sys.executable, "-c", SINK, str(port))
    with servers.program(argv, port, folder / "sink.log"):
        yield f"http://127.0.0.1:{port}"


def fill(server: servers.CalendarServer) -> Any:
    """A calendar with the events, written into Radicale's folder as it would itself."""
    client = caldav.DAVClient(url=server.home, username=server.login, password=server.password)
    calendar = client.get_principal().make_calendar(name="bench", cal_id="bench")
    (folder,) = server.folder.glob("collections/collection-root/*/bench")
    for number in range(EVENTS):
        (folder / f"event-{number}.ics").write_text(item(f"event-{number}"), newline="")
    return calendar


def works(home: str, login: str, password: str, address: str) -> dict[str, Work]:
    """The synchronisations that are measured."""
    client = caldav.DAVClient(url=home, username=login, password=password, timeout=PATIENCE)
    calendar = client.calendar(url=address)
    basic = httpx.BasicAuth(login, password)

    def loaded() -> None:
        assert len(calendar.get_objects(load_objects=True)) == EVENTS

    def listed() -> None:
        assert len(calendar.get_objects("http://radicale.org/ns/sync/" + "0" * 64)) == EVENTS

    def feed() -> None:
        response = httpx.get(address, auth=basic, headers={"Accept": "text/calendar"}, timeout=60)
        assert len(icalendar.Calendar.from_ical(response.text).subcomponents) == EVENTS

    return {
        "caldav, each event a request": loaded,
        "caldav, token lost, one request for all": partial(repeat, listed),
        "feed, fetched and parsed": partial(repeat, feed),
    }


def repeat(work: Work) -> None:
    """Short work, as often as there is in a round."""
    for _ in range(TOGETHER):
        work()


# --- a process that does the work ----------------------------------------------------------------------


def serve(arguments: list[str]) -> None:
    """Do the work that is named on each line, and say how many seconds of CPU it took."""
    known = works(*arguments)
    for line in sys.stdin:
        print(cpu(known[line.strip()]), flush=True)


def cpu(work: Work) -> float:
    """Seconds of CPU that a piece of work takes."""
    gc.collect()
    began = time.process_time()
    if "otel_shim" in sys.modules:  # under the launcher
        _for_an_organisation(work)
    else:
        work()
    return time.process_time() - began


def _for_an_organisation(work: Work) -> None:
    import otel_shim  # noqa: PLC0415 - not in the process without
    from otel_shim.signals import export  # noqa: PLC0415

    with otel_shim.identity(org_id="north", actor_type="job"):
        work()
    export.flush()


@dataclass(frozen=True)
class Client:
    """A process that does the work when it is asked to."""

    process: subprocess.Popen[str]

    def seconds(self, name: str) -> float:
        """Have a piece of work done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        while not (line := self.process.stdout.readline()).strip().replace(".", "").isdigit():
            assert line, "the client has ended"  # else it is a line of the log
        return float(line)


@contextmanager
def client(launcher: tuple[str, ...], otlp: str, arguments: tuple[str, ...]) -> Iterator[Client]:
    """Start such a process, with the launcher or without."""
    env = clean_environment() | {
        "OTEL_SERVICE_NAME": "benchmark",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "OTEL_SHIM_SECRET": "a-secret-for-measurements-only-0123456789",
        "OTEL_BSP_MAX_QUEUE_SIZE": "8192",
    }
    argv = (*launcher, sys.executable, "-m", "benchmarks.calendar", _CHILD, *arguments)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Client(process)
        finally:
            process.terminate()


# --- the comparison ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Seconds of CPU of neighbouring rounds, without and with."""

    without: list[float] = field(default_factory=list)
    launched: list[float] = field(default_factory=list)

    def least(self) -> float:
        """Of the cheapest rounds: what else runs on the machine can only add."""
        return min(self.launched) / min(self.without)

    def ratios(self) -> list[float]:
        """Of each pair."""
        return [more / less for less, more in zip(self.without, self.launched, strict=True)]


def measure(name: str, bare: Client, launched: Client) -> Measured:
    """Rounds without and with, next to each other; which is first changes."""
    bare.seconds(name), launched.seconds(name)
    found = Measured()
    for number in range(ROUNDS):
        pair = [(bare, found.without), (launched, found.launched)]
        for each, seconds in reversed(pair) if number % 2 else pair:
            seconds.append(each.seconds(name))
    return found


def describe(measured: Measured) -> str:
    """The ratios, and how far the rounds are spread."""
    low, middle, high = statistics.quantiles(measured.ratios(), n=4)
    verdict = "within" if middle <= LIMIT else "above"
    return (
        f"rounds of {statistics.median(measured.without):.3f} s of CPU without; with, times that: "
        f"median of {ROUNDS} pairs {middle:.4f} (quartiles {low:.4f} to {high:.4f}), "
        f"cheapest rounds {measured.least():.4f}; {verdict} the limit of {LIMIT}"
    )


def main() -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp())
    launcher = str(Path(sys.executable).parent / "opentelemetry-instrument")
    with ExitStack() as stack:
        server = stack.enter_context(servers.radicale(folder))
        otlp = stack.enter_context(sink(folder))
        address = str(fill(server).url)
        arguments = (server.home, str(server.login), str(server.password), address)
        bare = stack.enter_context(client((), otlp, arguments))
        launched = stack.enter_context(client((launcher,), otlp, arguments))
        for name in works(*arguments):
            print(f"{name}: {describe(measure(name, bare, launched))}", flush=True)


if __name__ == "__main__":
    if _CHILD in sys.argv:
        serve(sys.argv[sys.argv.index(_CHILD) + 1 :])
    else:
        main()
