"""A print shop's API: one route over the sync engine, one over the async one. Nothing here knows of telemetry.

Runs on FastAPI from 0.110 on. Logging is set up by ``SHOP_LOGGING``, as different authors do.
"""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from . import shop_logging, store
from .store import Agent

log = shop_logging.set_up(os.environ.get("SHOP_LOGGING", "basic"))
app = FastAPI()


def token_of(authorization: Annotated[str, Header()]) -> str:
    return authorization.removeprefix("Bearer ")


async def current_user(token: Annotated[str, Depends(token_of)]) -> Agent:
    return known(await store.agent_by_token_async(token))


def get_current_user(token: Annotated[str, Depends(token_of)]) -> Agent:
    return known(store.agent_by_token(token))


def known(agent: Agent | None) -> Agent:
    if agent is None:
        raise HTTPException(401, "nobody has this token")
    return agent


@app.get("/health")
def health() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.get("/async/{order}")
async def print_async(order: int, user: Annotated[Agent, Depends(current_user)]) -> dict[str, int]:
    await store.first_ticket_async(user.id)
    log("no paper", order)
    return {"pid": os.getpid()}


@app.get("/sync/{order}")
def print_sync(order: int, user: Annotated[Agent, Depends(get_current_user)]) -> dict[str, int]:
    store.first_ticket(user.id)
    log("no paper", order)
    return {"pid": os.getpid()}


@app.get("/boom")
async def boom(user: Annotated[Agent, Depends(current_user)]) -> None:
    raise RuntimeError("the printer is on fire")
