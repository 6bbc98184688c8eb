"""A news feed over WebSocket, server-sent events and a plain stream."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from . import store
from .store import Agent

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
log = logging.getLogger("feed")
LOG_EACH, QUERY_EACH = 10, 100
PACE_SECONDS = float(os.environ.get("FEED_PACE_SECONDS", "0"))
"""How long an item waits; 0 is as fast as it goes."""
app = FastAPI()


async def current_user(token: Annotated[str, Query()]) -> Agent:
    agent = await store.agent_by_token_async(token)
    if agent is None:
        raise HTTPException(401)
    return agent


User = Annotated[Agent, Depends(current_user)]


async def news(user: Agent, count: int) -> AsyncIterator[str]:
    """So many items; what is done for each tenth and hundredth leaves a log and a query."""
    for number in range(1, count + 1):
        if number % LOG_EACH == 0:
            log.info("item", extra={"number": number, "reader": user.id})
        if number % QUERY_EACH == 0:
            await store.first_ticket_async(user.id)
        if PACE_SECONDS:
            await asyncio.sleep(PACE_SECONDS)
        yield f"{number}"


@app.get("/health")
def health() -> dict[str, str]:
    return {}


@app.websocket("/socket")
async def socket(websocket: WebSocket, user: User) -> None:
    await websocket.accept(headers=[(b"x-feed", b"7")])
    try:
        while True:
            count = int(await websocket.receive_text())
            async for item in news(user, count):
                await websocket.send_text(item)
    except WebSocketDisconnect:
        log.info("gone", extra={"reader": user.id})


@app.get("/events")
async def events(user: User, count: int) -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        async for item in news(user, count):
            yield f"data: {item}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


@app.get("/stream")
def stream(user: User, count: int) -> StreamingResponse:
    def body() -> Iterator[str]:
        for number in range(1, count + 1):
            if number % LOG_EACH == 0:
                log.info("item", extra={"number": number, "reader": user.id})
            if number % QUERY_EACH == 0:
                store.first_ticket(user.id)
            yield f"{number}\n"

    return StreamingResponse(body())
