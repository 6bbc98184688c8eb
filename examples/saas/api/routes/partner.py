"""The partners' own API: a mounted application with API keys instead of users."""

import logging
from datetime import date

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import func, select

from .. import errors
from ..database import SyncDB
from ..models import Plan, Shift
from ..security import CurrentApiKey

logger = logging.getLogger(__name__)


class Hours(BaseModel):
    """Planned hours of one week."""

    week: date
    hours: float


def planned_hours(key: CurrentApiKey, session: SyncDB) -> list[Hours]:
    """Planned hours of the key's organisation, by week."""
    query = (
        select(Plan.week, func.sum(Shift.hours))
        .join(Shift, Shift.plan_id == Plan.id)
        .where(Plan.org_id == key.org_id)
        .group_by(Plan.week)
    )
    rows = [Hours(week=week, hours=hours) for week, hours in session.execute(query)]
    logger.info("partner read hours", extra={"weeks": len(rows)})
    return rows


def create_app() -> FastAPI:
    """The application to mount under `/partner`."""
    app = FastAPI(title="Roster for partners")
    errors.install(app)
    app.add_api_route("/v1/hours", planned_hours, methods=["GET"])
    return app
