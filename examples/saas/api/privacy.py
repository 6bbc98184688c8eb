"""Requests of people about their own data: opened in a request, done after it."""

import logging
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from .database import SessionLocal
from .models import AuditNote, Chart, ChatMessage, Payslip, PrivacyRequest, Shift, User
from .optional_identity import bind_audited, named_operation

logger = logging.getLogger(__name__)

# Entries in the company's record of processing activities.
ACTIVITIES = {"export": "ropa-031", "delete": "ropa-032"}


@named_operation("privacy.open")
def open_request(session: Session, user: User, kind: str) -> PrivacyRequest:
    """Write the request together with its audit note, and name that note on the telemetry."""
    note = AuditNote(org_id=user.org_id, user_id=user.id, action=f"privacy.{kind}.requested")
    session.add(note)
    session.flush()
    made = PrivacyRequest(
        id=str(uuid4()),
        org_id=user.org_id,
        user_id=user.id,
        kind=kind,
        status="open",
        audit_record_id=f"note-{note.id}",
    )
    session.add(made)
    session.commit()
    bind_audited(made.audit_record_id, ACTIVITIES[kind], "legal_obligation", "r3y")
    logger.info("privacy request opened", extra={"kind": kind})
    return made


@named_operation("privacy.process")
def process(request_id: str) -> None:
    """Do what was asked for, in one transaction with saying that it was done."""
    with SessionLocal.begin() as session:
        request = session.get_one(PrivacyRequest, request_id)
        act = _export if request.kind == "export" else _delete
        request.result = act(session, request.user_id)
        request.status = "done"
        logger.info("privacy request done", extra={"kind": request.kind})


def _export(session: Session, user_id: str) -> dict[str, Any]:
    user = session.get_one(User, user_id)
    turns = session.scalars(select(ChatMessage).where(ChatMessage.user_id == user_id))
    shifts = session.scalars(select(Shift).where(Shift.assignee_id == user_id))
    slips = session.scalars(select(Payslip).where(Payslip.user_id == user_id))
    charts = session.scalars(select(Chart).where(Chart.user_id == user_id))
    return {
        "person": {"name": user.name, "email": user.email, "role": user.role},
        "chat": [{"author": turn.author, "text": turn.text} for turn in turns],
        "shifts": [{"day": shift.day.isoformat(), "hours": shift.hours} for shift in shifts],
        "payslips": [{"month": slip.month, "amount_cents": slip.amount_cents} for slip in slips],
        "charts": [chart.body for chart in charts],
    }


def _delete(session: Session, user_id: str) -> dict[str, Any]:
    """Shifts and payslips stay: the law wants them kept."""
    chat = delete(ChatMessage).where(ChatMessage.user_id == user_id).returning(ChatMessage.id)
    charts = delete(Chart).where(Chart.user_id == user_id).returning(Chart.key)
    return {"chat": len(session.scalars(chat).all()), "charts": len(session.scalars(charts).all())}
