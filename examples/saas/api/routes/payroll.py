"""Payroll: one run pays all staff of an organisation. Synchronous; who cannot be paid is reported."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..database import SessionLocal, SyncDB
from ..errors import AppError
from ..models import Payslip, Shift, User
from ..optional_identity import named_operation
from ..security import CurrentUser, require_role

logger = logging.getLogger(__name__)
router = APIRouter(
    prefix="/payroll", tags=["payroll"], dependencies=[Depends(require_role("admin"))]
)

Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]


class NewRun(BaseModel):
    """The month to pay."""

    month: Month


class Failure(BaseModel):
    """Somebody who was not paid, and why."""

    user_id: str
    code: str


class Run(BaseModel):
    """What a run did."""

    status: str
    paid: int
    amount_cents: int
    failures: list[Failure]


@router.post("/runs")
def run(new: NewRun, current_user: CurrentUser, session: SyncDB) -> Run:
    """Pay everybody; one who cannot be paid does not keep the others from their money."""
    staff = session.scalars(select(User.id).where(User.org_id == current_user.org_id)).all()
    return pay_all(current_user.org_id, staff, new.month)


@named_operation("payroll.run")
def pay_all(org_id: str, staff: Sequence[str], month: str) -> Run:
    """Write each one's payslip in a transaction of its own."""
    slips = [_slip(org_id, user_id, month) for user_id in staff]
    failures = [slip for slip in slips if isinstance(slip, Failure)]
    amounts = [slip for slip in slips if isinstance(slip, int)]
    if failures:
        facts = {"error_code": "payroll_incomplete", "failures": len(failures)}
        logger.error("payroll: %d of %d not paid", len(failures), len(staff), extra=facts)
    status = "partial" if failures else "complete"
    return Run(status=status, paid=len(amounts), amount_cents=sum(amounts), failures=failures)


def _slip(org_id: str, user_id: str, month: str) -> int | Failure:
    """The amount of a new payslip, or why there is none."""
    try:
        with SessionLocal.begin() as session:
            return _pay(session, org_id, user_id, month)
    except AppError as error:
        return Failure(user_id=user_id, code=error.code)


def _pay(session: Session, org_id: str, user_id: str, month: str) -> int:
    wage = session.scalar(select(User.hourly_cents).where(User.id == user_id))
    if wage is None:
        raise AppError(422, "wage_missing", "this person has no wage")
    amount = round(wage * _hours(session, user_id, month))
    session.add(Payslip(org_id=org_id, user_id=user_id, month=month, amount_cents=amount))
    try:
        session.flush()
    except IntegrityError:
        raise AppError(409, "already_paid", "this month was paid before") from None
    return amount


def _hours(session: Session, user_id: str, month: str) -> float:
    first = date.fromisoformat(f"{month}-01")
    after = (first + timedelta(days=31)).replace(day=1)
    worked = select(func.sum(Shift.hours)).where(
        Shift.assignee_id == user_id, Shift.day >= first, Shift.day < after
    )
    return session.scalar(worked) or 0.0
