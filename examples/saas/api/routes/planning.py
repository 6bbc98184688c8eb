"""Plans: list, create, publish, export. Asynchronous throughout."""

import csv
import io
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Annotated

import httpx
from fastapi import APIRouter, BackgroundTasks, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from .. import calendar_queue, partner_service
from ..audit import write_note
from ..database import AsyncDB, AsyncSessions
from ..errors import AppError
from ..metrics import calendar_confirms
from ..models import Plan, Shift, User
from ..optional_identity import named_operation
from ..optional_operations import item_added
from ..security import CurrentUser, require_role

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/planning", tags=["planning"])
planners_only = Depends(require_role("planner", "admin"))

CHUNK_ROWS = 5


class PlanOut(BaseModel):
    """A plan as listed."""

    id: int
    week: date
    status: str


class NewShift(BaseModel):
    """One shift of a new plan."""

    assignee_id: str
    day: date
    hours: float = Field(gt=0, le=12)


class NewPlan(BaseModel):
    """A new plan with its shifts."""

    week: date
    shifts: list[NewShift] = Field(min_length=1)


def get_partner(request: Request) -> httpx.AsyncClient:
    """The client that lifespan made."""
    client: httpx.AsyncClient = request.app.state.partner
    return client


Partner = Annotated[httpx.AsyncClient, Depends(get_partner)]


async def get_plan(plan_id: int, current_user: CurrentUser, session: AsyncDB) -> Plan:
    """A plan of the caller's own organisation; 404 for anybody else's."""
    plan = await session.get(Plan, plan_id)
    if plan is None or plan.org_id != current_user.org_id:
        raise AppError(404, "plan_not_found", "no such plan")
    return plan


OwnPlan = Annotated[Plan, Depends(get_plan)]


@router.get("/plans")
async def list_plans(
    current_user: CurrentUser, session: AsyncDB, assignee: str | None = None
) -> list[PlanOut]:
    """The organisation's plans; with `assignee` (an email) only those with that person's shifts."""
    query = select(Plan).where(Plan.org_id == current_user.org_id).order_by(Plan.week, Plan.id)
    if assignee is not None:
        theirs = select(Shift.plan_id).join(User).where(User.email == assignee)
        query = query.where(Plan.id.in_(theirs))
    plans = await session.scalars(query)
    return [PlanOut.model_validate(plan, from_attributes=True) for plan in plans]


@router.post("/plans", status_code=201, dependencies=[planners_only])
async def create_plan(new: NewPlan, current_user: CurrentUser, session: AsyncDB) -> PlanOut:
    """Create a draft."""
    plan = Plan(org_id=current_user.org_id, week=new.week, status="draft")
    session.add(plan)
    await session.flush()
    session.add_all(Shift(plan_id=plan.id, **shift.model_dump()) for shift in new.shifts)
    await session.commit()
    logger.info("plan created", extra={"plan_id": plan.id, "shifts": len(new.shifts)})
    return PlanOut.model_validate(plan, from_attributes=True)


@router.get("/plans/{plan_id}")
async def read_plan(plan: OwnPlan) -> PlanOut:
    """One plan."""
    return PlanOut.model_validate(plan, from_attributes=True)


@router.post("/plans/{plan_id}/publish", dependencies=[planners_only])
async def publish_plan(
    plan: OwnPlan,
    current_user: CurrentUser,
    session: AsyncDB,
    partner: Partner,
    background: BackgroundTasks,
) -> PlanOut:
    """Publish a plan to the staff's calendars."""
    await publish(plan, session, partner)
    background.add_task(write_note, plan.org_id, current_user.id, "plan.published")
    return PlanOut.model_validate(plan, from_attributes=True)


@named_operation("planning.publish")
async def publish(plan: Plan, session: AsyncSession, partner: httpx.AsyncClient) -> None:
    """Send the shifts to the partner and remember its references."""
    shifts = (await session.scalars(select(Shift).where(Shift.plan_id == plan.id))).all()
    with calendar_confirms():
        references = await partner_service.publish_shifts(partner, plan, shifts)
    plan.status = "published"
    plan.calendar_ref = ",".join(references)
    await session.execute(calendar_queue.added(plan.org_id, plan.id))
    await session.commit()
    item_added(calendar_queue.NAME)
    logger.info("plan published", extra={"plan_id": plan.id, "people": len(references)})


@router.get("/plans/{plan_id}/export.csv")
async def export_plan(plan: OwnPlan, sessions: AsyncSessions) -> StreamingResponse:
    """The shifts as CSV, streamed: each chunk is queried when the one before was sent."""
    return StreamingResponse(_csv_chunks(sessions, plan.id), media_type="text/csv")


async def _csv_chunks(
    sessions: async_sessionmaker[AsyncSession], plan_id: int
) -> AsyncIterator[str]:
    yield "day,name,hours\r\n"
    last = 0
    async with sessions() as session:
        while rows := await _rows_after(session, plan_id, last):
            yield _as_csv([(shift.day, name, shift.hours) for shift, name in rows])
            last = rows[-1][0].id
    logger.info("export finished", extra={"plan_id": plan_id})


async def _rows_after(
    session: AsyncSession, plan_id: int, last: int
) -> Sequence[tuple[Shift, str]]:
    query = (
        select(Shift, User.name)
        .join(User)
        .where(Shift.plan_id == plan_id, Shift.id > last)
        .order_by(Shift.id)
        .limit(CHUNK_ROWS)
    )
    return [(shift, name) for shift, name in await session.execute(query)]


def _as_csv(rows: Sequence[tuple[date, str, float]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
