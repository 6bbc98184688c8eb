"""`/metrics` for Prometheus: of all processes of an application together, on a port of its own.

measurement ─▶ SharedStorage ─▶ this process's file          (at once, so that a kill loses nothing)
Publisher   ─▶ who holds the lock serves the port; when it dies, another takes over within a second
"""

from __future__ import annotations

import atexit
import fcntl
import hmac
import multiprocessing
import multiprocessing.util
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader

from otel_shim import _sdk_compat, attributes
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded, logger
from otel_shim.signals import exposition
from otel_shim.signals.metrics import EXEMPLAR_REQUEST_ID, LIMIT, OVERFLOW, observed_at
from otel_shim.signals.series import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    LIVING,
    UP_DOWN,
    Description,
    Directory,
    Series,
    merged,
)

_OF_THE_LIVING = {
    semconv.METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP,
    semconv.METRIC_SAAS_JOB_PERIOD,
}
"""Gauges that say how things are now: the last word of a dead process says nothing any more."""
TICK_SECONDS = 1.0
_OBSERVE_EACH = 10
"""Ticks from one reading of observable instruments to the next."""
_NOBODY = ({*attributes.IDENTITY_KEYS, *semconv.UPSTREAM_IDENTITY} - semconv.METRIC_DIMENSIONS) | {
    semconv.SAAS_REQUEST_ID,
    semconv.AUDIT_RECORD_ID,
    EXEMPLAR_REQUEST_ID,
}
"""What no label may be, whoever recorded it."""
_ANSWER_SECONDS = 5


class SharedStorage:
    """Where the SDK puts the measurements of one reader: into series that processes share."""

    def __init__(self, series: Series) -> None:
        self._series = series

    @guarded(default=None)
    def consume_measurement(self, measurement: Any, should_sample_exemplar: bool = True) -> None:
        """Take one measurement, of any instrument."""
        instrument, labels = measurement.instrument, measurement.attributes or {}
        try:
            cache_key = (instrument, *labels.items())
            found = self._series.find(cache_key)
        except TypeError:  # a label that is a list
            cache_key, found = (instrument, repr(labels)), None
        if found is None:
            description = _description(instrument, labels)
            found = self._series.enter(cache_key, description, {OVERFLOW: "true"})
        slot, boundaries = found
        value = measurement.value
        if isinstance(instrument, Histogram):
            self._series.observe(slot, boundaries, value)
        elif isinstance(instrument, (Counter, UpDownCounter)):
            self._series.add(slot, value)
        elif len(slot.values) == 1:
            self._series.put(slot, (value,))
        else:
            now = measurement.time_unix_nano / 1e9
            self._series.put(slot, (value, observed_at(measurement.context, now)))

    def collect(self) -> None:
        """Nothing for the SDK: what is here is read from the files."""


def _description(instrument: Any, labels: dict[str, Any]) -> Description:
    kind = _kind(instrument)
    texts = {name: _text(value) for name, value in labels.items() if name not in _NOBODY}
    bounds = _sdk_compat.boundaries(instrument) if kind == HISTOGRAM else ()
    return Description(
        kind,
        instrument.name,
        instrument.unit or "",
        instrument.description or "",
        tuple(map(float, bounds)),
        tuple(sorted(texts.items())),
    )


def _kind(instrument: Any) -> str:
    if isinstance(instrument, (Counter, ObservableCounter)):
        return COUNTER
    if isinstance(instrument, Histogram):
        return HISTOGRAM
    if isinstance(instrument, (UpDownCounter, ObservableUpDownCounter)):
        return UP_DOWN
    return LIVING if instrument.name in _OF_THE_LIVING else GAUGE


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Observer(MetricReader):
    """Reads the observable instruments of this process when it is told to."""

    def _receive_metrics(self, *_: Any, **__: Any) -> None:
        """Nothing comes: the storage keeps it."""

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to do: the files stay."""


class Publisher:
    """Serves the series of all processes, if this is the process whose turn it is."""

    def __init__(self, directory: Path, host: str, port: int, token: str | None) -> None:
        self._directory = Directory(directory)
        self.series = Series(self._directory, LIMIT)
        self.observer = _Observer()
        self._address = (host, port)
        self._token = token
        self._server: ThreadingHTTPServer | None = None
        self._turn: int | None = None
        self._thread: threading.Thread | None = None
        self._reported = False
        self._closed = threading.Event()

    def start(self) -> None:
        """Join the application's processes; OSError where the directory cannot be used."""
        self.series.join()
        os.register_at_fork(after_in_child=self._forked)
        self._run()

    def close(self) -> None:
        """Leave the port and the files to others, and record no more; for tests."""
        self._closed.set()
        atexit.unregister(self.read)
        if self._thread is not None:
            self._thread.join()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._turn is not None:
            os.close(self._turn)
        self._turn = self._server = None
        self.series.forget()

    def read(self) -> None:
        """Read the observable instruments of this process now."""
        guarded(default=None)(self.observer.collect)()

    def _run(self) -> None:
        # The file of a script that lived for a second stays when that has ended, so it is to be complete.
        atexit.register(self.read)
        if multiprocessing.parent_process() is not None:  # which may end without exit handlers
            multiprocessing.util.Finalize(None, self.read, exitpriority=0)
        self._thread = threading.Thread(target=self._work, name="otel-shim-metrics", daemon=True)
        self._thread.start()

    def _forked(self) -> None:
        """Leave the parent's port and files to the parent; the child's own come with its first use."""
        inherited = [self._server.socket.detach()] if self._server is not None else []
        for fd in (*inherited, *([self._turn] if self._turn is not None else [])):
            os.close(fd)
        self._turn = self._server = None
        self.series.forget()
        self.series.when_joined = self._run

    def _work(self) -> None:
        ticks = 0
        while not self._closed.wait(TICK_SECONDS if ticks else 0):
            if self._server is None and not _is_a_tracker() and self._is_our_turn():
                self._serve()
            if ticks % _OBSERVE_EACH == 0:
                self.read()
            ticks += 1

    @guarded(default=False)
    def _is_our_turn(self) -> bool:
        """Take the lock of whoever serves; the kernel frees it when that process ends."""
        if self._turn is None:
            path = self._directory.path / "server.lock"
            self._turn = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _serve(self) -> None:
        try:
            self._server = ThreadingHTTPServer(self._address, _handler(self))
        except OSError as error:
            if not self._reported:
                self._reported = True
                logger.error("/metrics cannot be served on %s:%d: %s", *self._address, error)
            return
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, name="otel-shim-metrics-server", daemon=True
        ).start()
        logger.info("/metrics is served on %s:%d by process %d", *self._address, os.getpid())

    def text(self) -> str:
        """The text of a scrape."""
        return exposition.exposition(merged(self._directory.shares()))

    def admits(self, authorization: str | None) -> bool:
        """Whether a request brings the token, where one is asked for."""
        if self._token is None:
            return True
        given = (authorization or "").encode("utf-8", "replace")
        return hmac.compare_digest(given, f"Bearer {self._token}".encode())


def _is_a_tracker() -> bool:
    """Whether this is the process in which multiprocessing keeps its accounts.

    It is started with the shim like every Python, closes its standard streams, and would serve the port
    with the log out of order.
    """
    return any("multiprocessing.resource_tracker" in part for part in sys.orig_argv)


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _ANSWER_SECONDS
        disable_nagle_algorithm = True
        wbufsize = -1  # the answer leaves as one, not headers first
        server_version = "otel-shim"
        sys_version = ""

        def do_GET(self) -> None:
            if not publisher.admits(self.headers.get("Authorization")):
                self._answer(401, "a token is needed\n", (("WWW-Authenticate", "Bearer"),))
            elif self.path.partition("?")[0] != "/metrics":
                self._answer(404, "try /metrics\n")
            else:
                text = guarded(default=None)(publisher.text)()
                self._answer(*((500, "see the log\n") if text is None else (200, text)))

        def _answer(
            self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()
        ) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in (
                *headers,
                ("Content-Type", exposition.CONTENT_TYPE),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """A scrape is no news."""

    return Handler


def publish(meters: MeterProvider, publisher: Publisher) -> None:
    """Record for the publisher too, and start it; OSError where its directory cannot be used."""
    publisher.start()
    _sdk_compat.use_metric_storage(meters, publisher.observer, SharedStorage(publisher.series))
