"""The news feed on plain Starlette: people come from ``AuthenticationMiddleware``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import store
from .feed import log, news
from .plain import Clerk


class Tokens(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Clerk] | None:
        agent = await store.agent_by_token_async(conn.query_params.get("token", ""))
        return (AuthCredentials(["clerk"]), Clerk(agent)) if agent else None


async def health(request: Request) -> JSONResponse:
    return JSONResponse({})


async def socket(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-feed", b"7")])
    try:
        while True:
            count = int(await websocket.receive_text())
            async for item in news(websocket.user, count):
                await websocket.send_text(item)
    except WebSocketDisconnect:
        log.info("gone", extra={"reader": websocket.user.id})


async def stream(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        async for item in news(request.user, int(request.query_params["count"])):
            yield f"data: {item}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/events", stream),
        Route("/stream", stream),
        WebSocketRoute("/socket", socket),
    ],
    middleware=[Middleware(AuthenticationMiddleware, backend=Tokens())],
)
