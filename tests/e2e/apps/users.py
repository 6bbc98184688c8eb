"""Users in the shapes that applications give them; each route runs the queries that its comment counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from pydantic import BaseModel
from sqlalchemy import ForeignKey, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

engine = create_engine(f"sqlite:///{os.environ['USERS_DATABASE']}")
ran: list[str] = []
"""Every statement that the driver was given, whoever asked for it."""


@event.listens_for(engine, "before_cursor_execute")
def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
    ran.append(statement)


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "team"

    id: Mapped[str] = mapped_column(primary_key=True)


class Member(Base):
    __tablename__ = "member"

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    role: Mapped[str]
    team_id: Mapped[str] = mapped_column(ForeignKey("team.id"))
    team: Mapped[Team] = relationship()


class Profile(BaseModel):
    id: str
    org_id: str
    role: str


@dataclass(frozen=True)
class ApiKey:
    id: str
    org_id: str


class Hostile:
    """Answers to everything with an error, as a detached or closed object does."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"nobody may read {name}")


Base.metadata.create_all(engine)
with Session(engine) as filling:
    if filling.get(Member, "mem-1") is None:
        filling.add_all(
            [Team(id="team-1"), Member(id="mem-1", org_id="org-1", role="owner", team_id="team-1")]
        )
        filling.commit()
ran.clear()
app = FastAPI()


def session() -> Iterator[Session]:
    with Session(engine) as opened:
        yield opened


Opened = Annotated[Session, Depends(session)]


def loaded(opened: Session) -> Member:
    member: Member | None = opened.scalar(select(Member))
    assert member is not None
    return member


def as_pydantic() -> Profile:
    return Profile(id="mem-1", org_id="org-1", role="owner")


def as_dict() -> dict[str, str]:
    return {"id": "mem-1", "org_id": "org-1", "role": "owner"}


def as_orm(opened: Opened) -> Member:
    return loaded(opened)


def expired(opened: Opened) -> Member:
    """All of it would have to be asked for again."""
    member = loaded(opened)
    opened.expire(member)
    return member


def detached() -> Member:
    """To load what is expired raises."""
    with Session(engine) as opened:
        member = loaded(opened)
        opened.expire(member)
        opened.expunge(member)
    return member


def hostile() -> Any:
    return Hostile()


def get_api_key(key: Annotated[str, Query()]) -> ApiKey:
    if key != "the-secret-key":
        raise HTTPException(401)
    return ApiKey(id="key-7", org_id="org-machines")


@app.get("/health")
def health() -> dict[str, str]:
    return {}


@app.get("/statements")
def statements() -> list[str]:
    found = list(ran)
    ran.clear()
    return found


@app.get("/pydantic")  # none
def pydantic_user(current_user: Annotated[Profile, Depends(as_pydantic)]) -> str:
    return current_user.id


@app.get("/dict")  # none
async def dict_user(current_user: Annotated[dict[str, str], Depends(as_dict)]) -> str:
    return current_user["id"]


@app.get("/orm")  # one; its team is never loaded
def orm_user(current_user: Annotated[Member, Depends(as_orm)]) -> str:
    return current_user.id


@app.get("/expired")  # one
def expired_user(current_user: Annotated[Member, Depends(expired)]) -> str:
    return "fine"


@app.get("/detached")  # one
def detached_user(current_user: Annotated[Member, Depends(detached)]) -> str:
    return "fine"


@app.get("/hostile")  # none
def hostile_user(current_user: Annotated[Any, Depends(hostile)]) -> str:
    return "fine"


@app.get("/machine")  # none
def machine(api_key: Annotated[ApiKey, Depends(get_api_key)]) -> str:
    return api_key.id
