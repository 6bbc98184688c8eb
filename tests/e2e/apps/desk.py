"""A help desk's API, written as its authors would have written it: nothing here knows of telemetry.

Every request may bring ``X-Marker``; what is logged for it carries the marker, so that a test knows
which request a line belongs to without asking telemetry.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Annotated, Any

import httpx
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Request,
    Response,
)
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import store
from .store import Agent

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
logging.getLogger("httpx").setLevel(logging.WARNING)
log = logging.getLogger("desk")
marker: ContextVar[str] = ContextVar("marker", default="-")
pool = ThreadPoolExecutor(4)
PARTNER = os.environ.get("DESK_PARTNER", "http://127.0.0.1:9")
partner = httpx.Client(base_url=PARTNER)
Answer = dict[str, Any]


def note(text: str, about: str | None = None) -> None:
    log.info(text, extra={"marker": about or marker.get(), "pid": os.getpid()})


class Markers:
    """Plain ASGI: notes which request this is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            marker.set(dict(scope["headers"]).get(b"x-marker", b"-").decode())
        await self.app(scope, receive, send)


class Versions(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        note("received")
        response = await call_next(request)
        response.headers["X-Desk-Version"] = "7"
        return response


class OverQuota(Exception):
    pass


# --- Who asks -------------------------------------------------------------------------------------


def token_of(authorization: Annotated[str | None, Header()] = None) -> str:
    if authorization is None:
        raise HTTPException(401, "who are you?")
    return authorization.removeprefix("Bearer ")


async def current_user(token: Annotated[str, Depends(token_of)]) -> Agent:
    agent = await store.agent_by_token_async(token)
    if agent is None:
        raise HTTPException(401, "nobody has this token")
    return agent


def get_current_user(token: Annotated[str, Depends(token_of)]) -> Agent:
    agent = store.agent_by_token(token)
    if agent is None:
        raise HTTPException(401, "nobody has this token")
    return agent


def only_admins(user: Annotated[Agent, Depends(get_current_user)]) -> None:
    if user.role != "admin":
        raise HTTPException(403, "admins only")


CurrentUser = Annotated[Agent, Depends(current_user)]
SyncUser = Annotated[Agent, Depends(get_current_user)]

# --- The application ------------------------------------------------------------------------------

app = FastAPI()
app.add_middleware(Versions)
app.add_middleware(Markers)


@app.exception_handler(OverQuota)
async def over_quota(request: Request, error: OverQuota) -> JSONResponse:
    note("over quota")
    request.state.error_code = "quota.exceeded"
    return JSONResponse({"error": "quota.exceeded"}, 409)


@app.get("/health")
async def health() -> Answer:
    return {"pid": os.getpid()}


@app.get("/sync")
def sync_endpoint(user: SyncUser) -> Answer:
    store.first_ticket(user.id)
    store.first_ticket(user.id)
    note("sync")
    return {"pid": os.getpid()}


@app.get("/async")
async def async_endpoint(current_user: CurrentUser) -> Answer:
    await store.first_ticket_async(current_user.id)
    await store.first_ticket_async(current_user.id)
    note("async")
    return {"pid": os.getpid()}


@app.get("/stream")
async def stream(current_user: CurrentUser) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(3):
            await store.first_ticket_async(current_user.id)
            note("piece")
            yield f"{number}\n"

    return StreamingResponse(pieces())


@app.get("/stream/sync")
def stream_sync(user: SyncUser) -> StreamingResponse:
    def pieces() -> Iterator[str]:
        for number in range(2):
            store.first_ticket(user.id)
            note("piece")
            yield f"{number}\n"

    return StreamingResponse(pieces())


@app.post("/background", status_code=202)
async def background(current_user: CurrentUser, tasks: BackgroundTasks) -> Answer:
    def later() -> None:
        store.first_ticket(agent)
        note("later")

    async def later_still() -> None:
        await store.first_ticket_async(agent)
        note("later still")

    agent = current_user.id
    tasks.add_task(later)
    tasks.add_task(later_still)
    return {}


@app.get("/together")
async def together(current_user: CurrentUser) -> Answer:
    """Tasks, threads of the default executor and of a pool that all requests share."""

    def in_pool() -> None:
        store.first_ticket(agent)
        note("in pool", about)

    agent, about = current_user.id, marker.get()
    await asyncio.gather(*(store.first_ticket_async(agent) for _ in range(2)))
    await asyncio.gather(*(asyncio.to_thread(store.first_ticket, agent) for _ in range(2)))
    await asyncio.wrap_future(pool.submit(in_pool))
    return {}


@app.get("/partner")
async def ask_partner(current_user: CurrentUser) -> Answer:
    async with httpx.AsyncClient(base_url=PARTNER) as client:
        answers = await asyncio.gather(client.get("/a"), client.get("/b"))
    note("asked")
    return {"answers": [answer.status_code for answer in answers]}


@app.get("/partner/sync")
def ask_partner_sync(user: SyncUser) -> Answer:
    answer = partner.get("/c")
    note("asked")
    return {"answers": [answer.status_code]}


@app.get("/quota")
async def quota(current_user: CurrentUser) -> Answer:
    raise OverQuota


@app.get("/boom")
async def boom(current_user: CurrentUser) -> Answer:
    await store.first_ticket_async(current_user.id)
    note("about to break")
    raise RuntimeError("the printer is on fire")


@app.get("/boom/sync")
def boom_sync(user: SyncUser) -> Answer:
    note("about to break")
    raise RuntimeError("the printer is on fire")


@app.get("/admin", dependencies=[Depends(only_admins)])
def admin() -> Answer:
    note("admin")
    return {}


# --- A router, guarded as a whole -----------------------------------------------------------------


class NewTicket(BaseModel):
    title: str


tickets = APIRouter(prefix="/tickets", dependencies=[Depends(current_user)])


@tickets.get("/{ticket_id}")
async def one_ticket(ticket_id: int, user: CurrentUser) -> Answer:
    if ticket_id > 1_000_000:
        raise HTTPException(404, "no such ticket")
    await store.first_ticket_async(user.id)
    note("ticket")
    return {}


@tickets.post("", status_code=201)
async def new_ticket(ticket: NewTicket, user: CurrentUser) -> Answer:
    await store.add_ticket(user.id, ticket.title)
    note("made")
    return {}


app.include_router(tickets)

# --- Mounted applications -------------------------------------------------------------------------

second = FastAPI()


@second.get("/me")
async def me(user: CurrentUser) -> Answer:
    await store.first_ticket_async(user.id)
    note("me")
    return {}


class Authenticated(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        request.state.user = await store.agent_by_token_async(token)
        if request.state.user is None:
            return JSONResponse({}, 401)
        return await call_next(request)


async def legacy_me(request: Request) -> JSONResponse:
    await store.first_ticket_async(request.state.user.id)
    note("legacy")
    return JSONResponse({})


legacy = Starlette(routes=[Route("/me", legacy_me)], middleware=[Middleware(Authenticated)])
app.mount("/v2", second)
app.mount("/legacy", legacy)
