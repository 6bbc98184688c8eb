"""The job `privacy.rollup`: finish requests that a crash left open, and forget delivered copies."""

import logging
from datetime import datetime, timedelta, timezone

from sqlalchemy import null, select, update

from . import privacy
from .database import SessionLocal
from .jobs import Processing, job
from .models import Organisation, PrivacyRequest
from .optional_identity import acting_for, operation_block
from .optional_operations import job_backlog, job_items

PROCESSING = Processing("ropa-033", "legal_obligation", "r3y")
# So long the background task of the request itself may take.
ABANDONED = timedelta(minutes=10)
# A copy of somebody's data is itself personal data.
KEPT = timedelta(days=30)
logger = logging.getLogger(__name__)


@job("privacy.rollup", "15 2 * * *", max_runtime=600, processing=PROCESSING)
def run() -> None:
    """Go through all organisations."""
    with SessionLocal() as session:
        organisations = session.scalars(select(Organisation.id)).all()
    open_before = open_after = 0
    for org_id in organisations:
        with acting_for(org_id, **PROCESSING.references()), operation_block("privacy.tidy"):
            found = _abandoned(org_id)
            done = _finish(found)
            _forget(org_id)
        open_before += len(found)
        open_after += len(found) - done
    job_backlog(before=open_before, after=open_after)


def _abandoned(org_id: str) -> list[str]:
    """The organisation's requests whose background task must have ended without doing its work."""
    late = PrivacyRequest.created_at < datetime.now(timezone.utc) - ABANDONED
    theirs = (PrivacyRequest.org_id == org_id, PrivacyRequest.status == "open", late)
    with SessionLocal() as session:
        return list(session.scalars(select(PrivacyRequest.id).where(*theirs)))


def _finish(requests: list[str]) -> int:
    """Do what was asked for; one that fails does not keep the others waiting."""
    done = sum(_finished(request_id) for request_id in requests)
    job_items(read=len(requests), written=done, rejected=len(requests) - done)
    return done


def _finished(request_id: str) -> bool:
    try:
        privacy.process(request_id)
    except Exception:
        logger.exception("privacy request failed", extra={"error_code": "privacy_failed"})
        return False
    return True


def _forget(org_id: str) -> None:
    """Remove copies that had their time."""
    old = PrivacyRequest.created_at < datetime.now(timezone.utc) - KEPT
    theirs = (PrivacyRequest.org_id == org_id, PrivacyRequest.status == "done", old)
    kept = (*theirs, PrivacyRequest.result.is_not(null()))
    with SessionLocal.begin() as session:
        forgotten = update(PrivacyRequest).where(*kept).values(result=null())
        session.execute(forgotten)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
