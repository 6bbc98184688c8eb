"""The application: `uvicorn --app-dir examples/saas api.app:app`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from . import errors, seed
from .database import make_async_engine, make_async_sessions
from .middleware import RequestLog
from .partner_service import make_client
from .routes import auth, billing, health, partner, planning

logging.basicConfig(
    level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=False
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make what needs a running event loop, and the data on the very first start."""
    await run_in_threadpool(seed.ensure)
    async_engine = make_async_engine()
    async with make_client() as client:
        app.state.async_sessions = make_async_sessions(async_engine)
        app.state.partner = client
        yield
    await async_engine.dispose()


def create_app() -> FastAPI:
    """Put the parts together."""
    app = FastAPI(title="Roster", lifespan=lifespan)
    errors.install(app)
    app.add_middleware(RequestLog)
    for router in (health.router, auth.router, planning.router, billing.router):
        app.include_router(router)
    app.mount("/partner", partner.create_app())
    return app


app = create_app()
