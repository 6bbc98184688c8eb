"""The nightly job `python -m api.retention`: delete audit notes whose time is over."""

import logging
from datetime import datetime, timedelta, timezone

from sqlalchemy import delete

from .database import SessionLocal
from .models import AuditNote
from .optional_identity import named_operation

KEPT = timedelta(days=2 * 365)
logger = logging.getLogger(__name__)


@named_operation("audit.retention.job")
def run() -> None:
    """Delete what is older than what the law asks to keep."""
    oldest = datetime.now(timezone.utc) - KEPT
    with SessionLocal.begin() as session:
        notes = session.execute(delete(AuditNote).where(AuditNote.created_at < oldest))
    logger.info("audit notes deleted", extra={"notes": getattr(notes, "rowcount", None)})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
