"""Metered features."""

import logging

from sqlalchemy import update
from sqlalchemy.orm import Session

from . import metrics
from .errors import AppError
from .models import Usage

logger = logging.getLogger(__name__)


def consume(session: Session, org_id: str, feature: str) -> int:
    """Use a feature once and return how much is left; 429 when nothing is.

    Test and increment are one statement, so that concurrent requests cannot overrun the quota.
    """
    used_up = (
        update(Usage)
        .where(Usage.org_id == org_id, Usage.feature == feature, Usage.used < Usage.quota)
        .values(used=Usage.used + 1)
        .returning(Usage.quota - Usage.used)
    )
    left = session.execute(used_up).scalar()
    session.commit()
    metrics.consumed(feature, granted=left is not None)
    if left is None:
        logger.error("quota of %s exceeded", feature, extra={"error_code": "quota_exceeded"})
        raise AppError(429, "quota_exceeded", f"the quota of {feature} is used up")
    return int(left)
