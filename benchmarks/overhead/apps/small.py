"""A small application, as a user writes it: nothing of OpenTelemetry in it."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from sqlalchemy import bindparam, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("small")
# The client's own line for each call is not what a service keeps.
logging.getLogger("httpx").setLevel(logging.WARNING)
engine = create_engine(f"sqlite:///{os.environ['BENCH_DATABASE']}")
downstream = httpx.Client(base_url=os.environ["BENCH_DOWNSTREAM"])


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    role: Mapped[str]


class Shift(Base):
    __tablename__ = "shifts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    hours: Mapped[int]


USER = select(User).where(User.id == bindparam("id"))
TOTAL = select(func.sum(Shift.hours)).where(Shift.user_id == bindparam("user"))
LONG = select(Shift).where(Shift.hours > bindparam("hours"))


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(id=1, org_id="org-1", role="planner"))
        session.add_all(Shift(user_id=1, hours=hours) for hours in range(1, 9))
        session.commit()
    yield


app = FastAPI(lifespan=lifespan)


async def database() -> AsyncIterator[Session]:
    with Session(engine) as session:
        yield session


Database = Annotated[Session, Depends(database)]


async def current_user(session: Database) -> User:
    return session.scalars(USER, {"id": 1}).one()


@app.get("/plain")
async def plain() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/logged")
async def logged() -> dict[str, str]:
    logger.info("a shift was read")
    return {"status": "ok"}


@app.get("/queries")
def queries(
    session: Database, current_user: Annotated[User, Depends(current_user)]
) -> dict[str, int]:
    total = session.scalar(TOTAL, {"user": current_user.id})
    shifts = session.scalars(LONG, {"hours": 4}).all()
    quota = downstream.get("/quota").raise_for_status().json()
    return {"total": total or 0, "long": len(shifts), "left": quota["left"]}
