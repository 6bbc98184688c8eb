"""500 alerts a second through the alert relay while Prometheus and the trace backend are silent.

`python -m monitoring.load --seconds 60`: exits 1 when an alert is lost at an Alertmanager, or later than 2 s, when the
rate was not reached, or when no look-up failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx

from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Stack, running

ROOT = Path(__file__).resolve().parents[1]
RATE = 500
BATCH = 50
LATEST_SECONDS = 2.0
LEAST_OF_RATE = 0.98
MOST_UNDERWAY = 300  # batches: half a minute of them
PATIENCE_SECONDS = 30.0
READY_SECONDS = 30.0
_FAILURES = re.compile(r"^otel_shim_relay_lookup_failures_total\{(.*)\} (\d+)$", re.MULTILINE)
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@dataclass(slots=True)
class Alertmanager:
    """Takes alerts and notes when each first came, in seconds since the epoch."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    came: dict[str, float] = field(default_factory=dict)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                self.take(json.loads(await reader.readexactly(int(length))))
                writer.write(_ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    def take(self, batch: list[dict[str, Any]]) -> None:
        """Note a batch."""
        now = time.time()
        self.alerts += batch
        for alert in batch:
            self.came.setdefault(alert["labels"]["number"], now)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A backend that takes a question and never answers; the caller's hanging up ends it."""
    while await reader.read(65536):
        pass
    writer.close()


@asynccontextmanager
async def listening(talk: Any) -> AsyncIterator[str]:
    """A server on loopback; yields its URL."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def relay_part(port: int, state: Path, alertmanagers: Sequence[str], *more: str) -> Part:
    """The relay as a program."""
    given = [part for url in alertmanagers for part in ("--alertmanager", url)]
    argv = (sys.executable, "-m", "otel_shim.cli", "alert-relay", "--port", str(port))
    return Part(
        "alert-relay",
        (*argv, "--state", str(state), *given, *more),
        f"http://127.0.0.1:{port}/health",
        env={"PYTHONPATH": str(ROOT)},
    )


def alert(number: int, ends: timedelta = timedelta(minutes=4)) -> dict[str, Any]:
    """An alert as Prometheus sends it, with everything to look up."""
    now = datetime.now(timezone.utc)
    return {
        "labels": {"alertname": "Load", "number": str(number)},
        "annotations": {
            "relay_exemplars": f'requests_bucket{{number="{number}"}}',
            "relay_service": "load",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + ends).isoformat(),
        "generatorURL": "http://prometheus.example/graph",
    }


@dataclass(slots=True)
class Sent:
    """What was sent: when each alert was, in seconds since the epoch, in how many seconds all, and what came of it."""

    alerts: dict[str, float] = field(default_factory=dict)
    took: float = 0.0
    refused: int = 0
    unsent: int = 0

    @property
    def rate(self) -> float:
        """Alerts a second; the last batch has its time, too."""
        return len(self.alerts) / self.took


async def send(url: str, seconds: float) -> Sent:
    """Send each batch when it is due, whether or not those before it were answered."""
    sent, underway = Sent(), set[asyncio.Task[None]]()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=MOST_UNDERWAY)
    async with httpx.AsyncClient(
        timeout=PATIENCE_SECONDS, trust_env=False, limits=limits
    ) as client:
        started = time.monotonic()
        for first in range(0, int(RATE * seconds), BATCH):
            await asyncio.sleep(max(0.0, started + first / RATE - time.monotonic()))
            if len(underway) == MOST_UNDERWAY:
                sent.unsent += 1
                continue
            batch = [alert(number) for number in range(first, first + BATCH)]
            sent.alerts |= dict.fromkeys((item["labels"]["number"] for item in batch), time.time())
            task = asyncio.create_task(post(client, url, batch, sent))
            underway.add(task)
            task.add_done_callback(underway.discard)
        sent.took = time.monotonic() - started + BATCH / RATE
        await asyncio.gather(*underway)
    return sent


async def post(client: httpx.AsyncClient, url: str, batch: list[Any], sent: Sent) -> None:
    """Send a batch; note when it was not accepted."""
    try:
        answer = await client.post(f"{url}/api/v2/alerts", json=batch)
        sent.refused += not answer.is_success
    except httpx.HTTPError:
        sent.refused += 1


async def run(stack: Stack, seconds: float) -> int:
    """The load; returns the exit code."""
    managers = [Alertmanager(), Alertmanager()]
    async with (
        listening(silent) as dead,
        listening(managers[0].talk) as one,
        listening(managers[1].talk) as two,
    ):
        port = free_ports(1)[0]
        more = ("--prometheus", dead, "--traces", dead)
        stack.start(relay_part(port, stack.out / "state.sqlite", (one, two), *more))
        await asyncio.to_thread(stack.wait_ready, READY_SECONDS)
        url = f"http://127.0.0.1:{port}"
        sent = await send(url, seconds)
        await asyncio.sleep(LATEST_SECONDS)
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"{url}/metrics")).text
    return judge(sent, managers, failures(metrics))


def failures(metrics: str) -> dict[str, int]:
    """The look-ups without an answer that the relay has counted, by backend and reason."""
    return {labels: int(count) for labels, count in _FAILURES.findall(metrics) if int(count)}


def judge(sent: Sent, managers: Sequence[Alertmanager], failed: Mapping[str, int]) -> int:
    """Print what was lost and late; 1 when anything was, or when it was not the load that was asked for."""
    slow = sent.rate < RATE * LEAST_OF_RATE
    print(
        f"{len(sent.alerts)} alerts sent, {sent.rate:.0f} a second{', too few' if slow else ''}; "
        f"{sent.refused} batches refused, {sent.unsent} not sent for too many underway"
    )
    bad = sent.refused + sent.unsent + slow
    for name, manager in enumerate(managers, start=1):
        bad += judged(f"Alertmanager {name}", sent, manager)
    asked = ", ".join(f"{labels}: {count}" for labels, count in failed.items())
    print(f"look-ups without an answer: {asked or 'none, so the backends were not asked'}")
    return 1 if bad or not failed else 0


def judged(name: str, sent: Sent, manager: Alertmanager) -> int:
    """Print and count what an Alertmanager got late or not at all."""
    delays = {
        number: manager.came[number] - at
        for number, at in sent.alerts.items()
        if number in manager.came
    }
    lost = len(sent.alerts) - len(delays)
    late = sum(delay > LATEST_SECONDS for delay in delays.values())
    middle = statistics.median(delays.values()) if delays else float("nan")
    longest = max(delays, key=lambda number: delays[number], default="-")
    print(
        f"{name}: {lost} lost, {late} later than {LATEST_SECONDS:g} s; median {middle:.3f} s, "
        f"longest {delays.get(longest, float('nan')):.3f} s (alert {longest})"
    )
    return lost + late


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load and return the exit code."""
    parser = argparse.ArgumentParser(prog="monitoring.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        return asyncio.run(run(stack, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
