"""The relay as a web server: Alertmanager's `POST /api/v2/alerts`, `/health`, `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from otel_shim.relay.delivery import Delivery
from otel_shim.relay.lookup import Lookup
from otel_shim.relay.measures import Measures
from otel_shim.relay.memory import Memory
from otel_shim.relay.model import Settings
from otel_shim.relay.relaying import Prepared, Relaying
from otel_shim.relay.second_look import SecondLook

_logger = logging.getLogger(__name__)
_STOP_SECONDS = 3.0
_FORGET_SECONDS = 3600.0
_METRICS_TYPE = "text/plain; version=0.0.4"


def open_memory(file: Path) -> tuple[Memory, str | None]:
    """The memory, and why it is not on disk if it is not: what is in the file is left to its owner."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return Memory(file, time.time()), None
    except (OSError, sqlite3.Error, ValueError, KeyError, TypeError) as error:
        _logger.error("%s cannot be used, ids are lost with this process: %s", file, error)
        return Memory(None), f"{file}: {error}"


class Relay:
    """What the routes share."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self.measures = Measures()
        self.memory, self.memory_problem = open_memory(settings.state)
        lookup = Lookup(settings, client, self.measures)
        self.measures.add("errors", int(self.memory_problem is not None))
        self.relaying = Relaying(settings, lookup, self.memory, self.measures)
        self.delivery = Delivery(
            settings.alertmanagers, client, self.measures, settings.delivery_timeout
        )
        self.second_look = SecondLook(self.relaying.again, self._deliver, settings.again_after)

    async def take(self, request: Request) -> Response:
        """Pass a batch on; 200 once an Alertmanager has it, else 502: Prometheus sends it again."""
        started = time.monotonic()
        batch = await self.relaying.prepare(await request.body())
        self.measures.add("alerts_received", batch.alerts)
        self.measures.delayed(time.monotonic() - started, batch.alerts)
        self.second_look.at(batch.without)
        return Response(status_code=200 if await self._deliver(batch) else 502)

    async def _deliver(self, batch: Prepared) -> bool:
        return await self.delivery.deliver(batch.body, batch.alerts)

    async def metrics(self, request: Request) -> Response:
        """The relay's own counters."""
        return PlainTextResponse(self.measures.text(), media_type=_METRICS_TYPE)

    async def health(self, request: Request) -> Response:
        """It serves; a memory that is lost with the process is said here, and is no reason to stop."""
        return JSONResponse({"status": "ok", "memory": self.memory_problem or "on disk"})

    async def forget(self) -> None:
        """Delete old memories now and then."""
        while True:
            if await asyncio.wrap_future(self.memory.forget(time.time())) is not None:
                self.measures.add("errors")
            await asyncio.sleep(_FORGET_SECONDS)


def create_app(settings: Settings) -> Starlette:
    """The application."""
    client = httpx.AsyncClient(timeout=settings.patience, trust_env=False)
    relay = Relay(settings, client)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        relay.delivery.start()
        forgetting = asyncio.create_task(relay.forget())
        yield
        forgetting.cancel()
        relay.second_look.stop()
        await relay.delivery.stop(_STOP_SECONDS)
        await client.aclose()
        relay.memory.close()

    routes = [
        Route("/api/v2/alerts", relay.take, methods=["POST"]),
        Route("/metrics", relay.metrics),
        *(Route(path, relay.health) for path in ("/health", "/-/healthy", "/-/ready")),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.run(create_app(settings), host=host, port=port, access_log=False, log_level="warning")
