"""The print shop on plain Starlette: users come from ``AuthenticationMiddleware``."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from . import shop_logging, store

log = shop_logging.set_up(os.environ.get("SHOP_LOGGING", "basic"))


class Clerk(BaseUser):
    def __init__(self, agent: store.Agent) -> None:
        self.id = agent.id
        self.org_id = agent.org_id
        self.role = agent.role
        self.plan = agent.plan


class Tokens(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        token = conn.headers.get("Authorization", "").removeprefix("Bearer ")
        agent = await store.agent_by_token_async(token) if token else None
        return (AuthCredentials(["clerk"]), Clerk(agent)) if agent else None


async def health(request: Request) -> JSONResponse:
    return JSONResponse({"pid": os.getpid()})


async def print_async(request: Request) -> JSONResponse:
    await store.first_ticket_async(request.user.id)
    log("no paper", int(request.path_params["order"]))
    return JSONResponse({"pid": os.getpid()})


def print_sync(request: Request) -> JSONResponse:
    store.first_ticket(request.user.id)
    log("no paper", int(request.path_params["order"]))
    return JSONResponse({"pid": os.getpid()})


async def boom(request: Request) -> JSONResponse:
    raise RuntimeError("the printer is on fire")


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/async/{order}", print_async),
        Route("/sync/{order}", print_sync),
        Route("/boom", boom),
    ],
    middleware=[Middleware(AuthenticationMiddleware, backend=Tokens())],
)
