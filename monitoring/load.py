"""500 alerts a second through the alert relay while Prometheus and the trace backend are silent.

`python -m monitoring.load --seconds 60`: exits 1 when an alert is lost at an Alertmanager, or later than 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
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
READY_SECONDS = 30.0
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


async def send(url: str, seconds: float) -> tuple[dict[str, float], int]:
    """Send at the rate; when each alert was sent, and how many batches were not accepted."""
    sent: dict[str, float] = {}
    refused = 0
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        started = time.monotonic()
        for first in range(0, int(RATE * seconds), BATCH):
            await asyncio.sleep(max(0.0, started + first / RATE - time.monotonic()))
            batch = [alert(number) for number in range(first, first + BATCH)]
            sent |= dict.fromkeys((item["labels"]["number"] for item in batch), time.time())
            answer = await client.post(f"{url}/api/v2/alerts", json=batch)
            refused += not answer.is_success
    return sent, refused


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
        sent, refused = await send(f"http://127.0.0.1:{port}", seconds)
        await asyncio.sleep(LATEST_SECONDS)
    return judge(sent, refused, managers)


def judge(sent: dict[str, float], refused: int, managers: Sequence[Alertmanager]) -> int:
    """Print what was lost and late; 1 when anything was."""
    bad = refused
    print(f"{len(sent)} alerts sent, {refused} batches refused")
    for name, manager in enumerate(managers, start=1):
        delays = [
            manager.came[number] - at for number, at in sent.items() if number in manager.came
        ]
        lost = len(sent) - len(delays)
        late = sum(delay > LATEST_SECONDS for delay in delays)
        bad += lost + late
        middle = statistics.median(delays) if delays else float("nan")
        print(
            f"Alertmanager {name}: {lost} lost, {late} later than {LATEST_SECONDS:g} s; "
            f"median {middle:.3f} s, longest {max(delays, default=float('nan')):.3f} s"
        )
    return 1 if bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load and return the exit code."""
    parser = argparse.ArgumentParser(prog="monitoring.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        return asyncio.run(run(stack, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
