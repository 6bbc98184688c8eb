"""Audit notes, written after the response was sent."""

import logging

from .database import SessionLocal
from .models import AuditNote

logger = logging.getLogger(__name__)


def write_note(org_id: str, user_id: str, action: str) -> None:
    """Write one note; runs as a background task on a pool thread."""
    with SessionLocal.begin() as session:
        session.add(AuditNote(org_id=org_id, user_id=user_id, action=action))
    logger.info("audit note written", extra={"action": action})
