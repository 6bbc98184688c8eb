"""The application: `uvicorn --app-dir examples/saas api.app:app`."""

import asyncio
import logging
import multiprocessing
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from . import errors, metrics, optional_operations, seed
from .database import make_async_engine, make_async_sessions
from .middleware import RequestLog
from .partner_service import make_client
from .routes import (
    auth,
    b2b,
    billing,
    charts,
    chat,
    health,
    material,
    partner,
    payroll,
    planning,
    privacy,
)

ROUTERS = (
    health.router,
    auth.router,
    planning.router,
    billing.router,
    chat.router,
    privacy.router,
    charts.router,
    b2b.router,
    payroll.router,
    material.router,
)

logging.basicConfig(
    level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=False
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make what needs a running event loop, and the data on the very first start."""
    await run_in_threadpool(seed.ensure)
    metrics.install()
    async_engine = make_async_engine()
    # Not by fork: this process has threads.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as processes:
        # A task without work starts the process now; the first chart would wait for it otherwise.
        await asyncio.wrap_future(processes.submit(int))
        async with make_client() as client:
            app.state.async_sessions = make_async_sessions(async_engine)
            app.state.partner = client
            app.state.processes = processes
            yield
    await async_engine.dispose()


def create_app() -> FastAPI:
    """Put the parts together."""
    app = FastAPI(title="Roster", lifespan=lifespan)
    errors.install(app)
    app.add_middleware(RequestLog)
    for router in ROUTERS:
        app.include_router(router)
    optional_operations.install(app)
    app.mount("/partner", partner.create_app())
    return app


app = create_app()
