"""The help desk's database, reached by a sync and by an async engine. ``python -m apps.store`` fills it."""

from __future__ import annotations

import os

from sqlalchemy import AsyncAdaptedQueuePool, ForeignKey, create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from .people import PEOPLE

_FILE = os.environ.get("DESK_DATABASE", "desk.db")
engine = create_engine(f"sqlite:///{_FILE}", pool_size=40, connect_args={"timeout": 30})
async_engine = create_async_engine(
    f"sqlite+aiosqlite:///{_FILE}",
    poolclass=AsyncAdaptedQueuePool,  # no default for files before 2.0.38
    pool_size=40,
    connect_args={"timeout": 30},
)


class Base(DeclarativeBase):
    pass


class Agent(Base):
    __tablename__ = "agent"

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    role: Mapped[str]
    plan: Mapped[str]
    name: Mapped[str]
    email: Mapped[str]
    token: Mapped[str] = mapped_column(unique=True)


class Ticket(Base):
    __tablename__ = "ticket"

    id: Mapped[int] = mapped_column(primary_key=True)
    agent_id: Mapped[str] = mapped_column(ForeignKey("agent.id"))
    title: Mapped[str]


def first_ticket(agent_id: str) -> str | None:
    """One query of the sync engine."""
    with Session(engine) as session:
        return session.scalar(select(Ticket.title).where(Ticket.agent_id == agent_id))


async def first_ticket_async(agent_id: str) -> str | None:
    """One query of the async engine."""
    async with AsyncSession(async_engine) as session:
        title: str | None = await session.scalar(
            select(Ticket.title).where(Ticket.agent_id == agent_id)
        )
        return title


def agent_by_token(token: str) -> Agent | None:
    """One query of the sync engine."""
    with Session(engine) as session:
        return session.scalar(select(Agent).where(Agent.token == token))


async def agent_by_token_async(token: str) -> Agent | None:
    """One query of the async engine."""
    async with AsyncSession(async_engine) as session:
        agent: Agent | None = await session.scalar(select(Agent).where(Agent.token == token))
        return agent


async def add_ticket(agent_id: str, title: str) -> None:
    """One INSERT."""
    async with AsyncSession(async_engine) as session:
        session.add(Ticket(agent_id=agent_id, title=title))
        await session.commit()


def fill() -> None:
    """Make the tables and the people."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Agent(**vars(person)) for person in PEOPLE)
        session.flush()
        session.add_all(Ticket(agent_id=person.id, title="Printer is on fire") for person in PEOPLE)
        session.commit()


if __name__ == "__main__":
    fill()
