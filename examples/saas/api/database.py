"""Two engines on one database: a synchronous one made at import, an asyncio one in lifespan."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from .settings import settings

# Several workers write to SQLite's one file: a writer waits for the other instead of failing at once.
CONNECT_ARGS = {"timeout": 20} if settings.database == "sqlite" else {}

engine = create_engine(settings.sync_database_url, connect_args=CONNECT_ARGS)
SessionLocal = sessionmaker(engine)


def make_async_engine() -> AsyncEngine:
    """Make the asyncio engine; called from lifespan, when the event loop runs."""
    return create_async_engine(settings.async_database_url, connect_args=CONNECT_ARGS)


def make_async_sessions(async_engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose objects stay readable after commit, as asyncio needs it."""
    return async_sessionmaker(async_engine, expire_on_commit=False)


def get_session() -> Iterator[Session]:
    """A synchronous session for one request."""
    with SessionLocal() as session:
        yield session


def get_async_sessions(request: Request) -> async_sessionmaker[AsyncSession]:
    """The session factory that lifespan made."""
    sessions: async_sessionmaker[AsyncSession] = request.app.state.async_sessions
    return sessions


async def get_async_session(
    sessions: Annotated[async_sessionmaker[AsyncSession], Depends(get_async_sessions)],
) -> AsyncIterator[AsyncSession]:
    """An asynchronous session for one request."""
    async with sessions() as session:
        yield session


SyncDB = Annotated[Session, Depends(get_session)]
AsyncDB = Annotated[AsyncSession, Depends(get_async_session)]
AsyncSessions = Annotated[async_sessionmaker[AsyncSession], Depends(get_async_sessions)]
