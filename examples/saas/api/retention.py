"""The nightly job `python -m api.retention`: delete audit notes whose time is over."""

import logging
from datetime import datetime, timedelta, timezone

from sqlalchemy import ColumnElement, delete, func, select

from .database import SessionLocal
from .jobs import Processing, job
from .models import AuditNote, Organisation
from .optional_identity import acting_for, operation_block
from .optional_operations import job_backlog, job_items

KEPT = timedelta(days=2 * 365)
# An organisation's notes are deleted so many at a time: a long transaction would keep others waiting.
BATCH = 500
PROCESSING = Processing("ropa-050", "legal_obligation", "r2y")
logger = logging.getLogger(__name__)


@job("audit.retention.job", "0 3 * * *", max_runtime=600, critical=True, processing=PROCESSING)
def run() -> None:
    """Delete what is older than what the law asks to keep, but for what a court wants kept."""
    before = _due()
    with SessionLocal() as session:
        organisations = session.execute(select(Organisation.id, Organisation.legal_hold)).all()
    for org_id, held in organisations:
        with acting_for(org_id, **PROCESSING.references()), operation_block("audit.expire"):
            _expire(org_id, held)
    job_backlog(before=before, after=_due())


def _expired() -> ColumnElement[bool]:
    return AuditNote.created_at < datetime.now(timezone.utc) - KEPT


def _due() -> int:
    """How many notes are to be deleted; those under a legal hold are not."""
    held = select(Organisation.id).where(Organisation.legal_hold)
    statement = select(func.count()).select_from(AuditNote)
    with SessionLocal() as session:
        due = statement.where(_expired(), AuditNote.org_id.not_in(held))
        return session.scalar(due) or 0


def _expire(org_id: str, held: bool) -> None:
    """Delete one batch and note that it was done, in one transaction."""
    with SessionLocal.begin() as session:
        theirs = select(AuditNote.id).where(AuditNote.org_id == org_id, _expired())
        ids = session.scalars(theirs.order_by(AuditNote.id).limit(BATCH)).all()
        if ids and not held:
            session.execute(delete(AuditNote).where(AuditNote.id.in_(ids)))
            session.add(AuditNote(org_id=org_id, user_id="-", action="audit.expired"))
    deleted = 0 if held else len(ids)
    job_items(read=len(ids), written=deleted, filtered=len(ids) - deleted)
    logger.info("audit notes deleted", extra={"notes": deleted, "held": len(ids) - deleted})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
