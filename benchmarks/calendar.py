"""What a synchronisation of 1 000 events costs with our instrumentors, as a ratio of CPU time.

    python -m benchmarks.calendar      (in the environment of the calendar tests: `make bench-calendar`)

A real Radicale holds the events. Rounds alternate between without and with, in one process, so that
what slows the machine slows both. CPU time is that of the whole client process, all threads: the export
over OTLP to another process is in it, flushed within the round. What is judged is the ratio of the cheapest
rounds; the median of the pairs and their spread are printed beside.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caldav
import httpx
import icalendar
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import otel_shim
from otel_shim.capture.caldav import CaldavInstrumentor
from otel_shim.capture.ics import IcalendarInstrumentor
from otel_shim.signals import encoding
from otel_shim.signals.spans import IdentitySpanProcessor
from tests.calendar import servers
from tests.calendar.clients import item

EVENTS = 1000
ROUNDS = int(os.environ.get("ROUNDS", "15"))
LIMIT = 1.03
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
Work = Callable[[], Any]


@contextmanager
def sink(folder: Path) -> Iterator[str]:
    """A process that takes OTLP and forgets it."""
    port = servers.free_port()
    argv = (sys.executable, "-c", SINK, str(port))
    with servers.program(argv, port, folder / "sink.log"):
        yield f"http://127.0.0.1:{port}"


class Telemetry:
    """The SDK as the distro sets it up, exporting to an address; on and off at will."""

    def __init__(self, otlp: str) -> None:
        self.tracers = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{otlp}/v1/traces")
        batch = BatchSpanProcessor(exporter, max_queue_size=8192)
        self.tracers.add_span_processor(IdentitySpanProcessor())
        self.tracers.add_span_processor(batch)
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{otlp}/v1/metrics"))
        self.meters = MeterProvider([reader], shutdown_on_exit=False)

    @contextmanager
    def on(self) -> Iterator[None]:
        """With our instrumentors."""
        instrumentors = (CaldavInstrumentor(), IcalendarInstrumentor())
        for each in instrumentors:
            each.instrument(tracer_provider=self.tracers, meter_provider=self.meters)
        try:
            yield
        finally:
            for each in instrumentors:
                each.uninstrument()


def fill(server: servers.CalendarServer) -> Any:
    """A calendar with the events, written into Radicale's folder as it would itself."""
    client = caldav.DAVClient(url=server.home, username=server.login, password=server.password)
    calendar = client.get_principal().make_calendar(name="bench", cal_id="bench")
    (folder,) = server.folder.glob("collections/collection-root/*/bench")
    for number in range(EVENTS):
        (folder / f"event-{number}.ics").write_text(item(f"event-{number}"), newline="")
    return calendar


def works(server: servers.CalendarServer, calendar: Any) -> dict[str, Work]:
    """The synchronisations that are measured."""
    address = str(calendar.url)
    login = httpx.BasicAuth(str(server.login), str(server.password))

    def loaded() -> None:
        assert len(calendar.get_objects(load_objects=True)) == EVENTS

    def listed() -> None:
        assert len(calendar.get_objects("http://radicale.org/ns/sync/" + "0" * 64)) == EVENTS

    def feed() -> None:
        response = httpx.get(address, auth=login, headers={"Accept": "text/calendar"}, timeout=60)
        assert len(icalendar.Calendar.from_ical(response.text).subcomponents) == EVENTS

    return {
        "caldav, each event a request": loaded,
        "caldav, token lost, one request for all": listed,
        "feed, fetched and parsed": feed,
    }


def cpu(work: Work) -> float:
    """Seconds of CPU that a piece of work takes."""
    gc.collect()
    began = time.process_time()
    with otel_shim.identity(org_id="north", actor_type="job"):
        work()
    return time.process_time() - began


@dataclass(frozen=True)
class Measured:
    """Seconds of CPU of neighbouring rounds, without and with."""

    without: list[float]
    instrumented: list[float]

    def ratio(self) -> float:
        """Of the cheapest rounds: what else runs on the machine can only add."""
        return min(self.instrumented) / min(self.without)

    def ratios(self) -> list[float]:
        """Of each pair."""
        return [more / less for less, more in zip(self.without, self.instrumented, strict=True)]


def measure(work: Work, telemetry: Telemetry) -> Measured:
    """Rounds without and with, next to each other; which is first changes."""

    def flushed() -> None:
        work()
        telemetry.tracers.force_flush()

    def instrumented() -> float:
        with telemetry.on():
            return cpu(flushed)

    cpu(work), instrumented()
    found = Measured([], [])
    for number in range(ROUNDS):
        if number % 2:
            found.instrumented.append(instrumented())
            found.without.append(cpu(work))
        else:
            found.without.append(cpu(work))
            found.instrumented.append(instrumented())
    return found


def main() -> int:
    """Measure and print; returns 0 where every ratio is within the limit."""
    encoding.install()
    found: dict[str, Measured] = {}
    folder = Path(tempfile.mkdtemp())
    with servers.radicale(folder) as server, sink(folder) as otlp:
        telemetry = Telemetry(otlp)
        for name, work in works(server, fill(server)).items():
            found[name] = measure(work, telemetry)
            print(f"{name}: {describe(found[name])}", flush=True)
    return 0 if max(each.ratio() for each in found.values()) <= LIMIT else 1


def describe(measured: Measured) -> str:
    """The ratio, and how far the rounds are spread."""
    low, middle, high = statistics.quantiles(measured.ratios(), n=4)
    return (
        f"{EVENTS} events, {min(measured.without):.3f} s of CPU without, "
        f"{measured.ratio():.4f} times that with (limit {LIMIT}; median of {ROUNDS} pairs "
        f"{middle:.4f}, quartiles {low:.4f} to {high:.4f})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
