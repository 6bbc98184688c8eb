"""The API for other companies' software: keys act for an organisation, calls are metered."""

import logging
import secrets
from datetime import date, datetime, timezone
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from .. import quota
from ..database import SyncDB
from ..models import ApiKey, Plan, Usage
from ..passwords import digest, new_token
from ..security import CurrentApiKey, CurrentUser, require_role

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/b2b", tags=["b2b"])

FEATURE = "api_calls"


class KeyOut(BaseModel):
    """A new key; shown this one time."""

    id: str
    key: str


class CallsOut(BaseModel):
    """Metered calls of the organisation."""

    used: int
    quota: int


class Week(BaseModel):
    """A planned week."""

    week: date
    status: str


def metered_key(key: CurrentApiKey, session: SyncDB) -> ApiKey:
    """A valid key whose organisation may still call; 429 when its quota is used up."""
    quota.consume(session, key.org_id, FEATURE)
    return key


MeteredKey = Annotated[ApiKey, Depends(metered_key)]


@router.post("/keys", status_code=201, dependencies=[Depends(require_role("admin"))])
def create_key(current_user: CurrentUser, session: SyncDB) -> KeyOut:
    """An admin makes a key for the organisation's software."""
    created = _add_key(session, current_user.org_id)
    session.commit()
    logger.info("key created", extra={"key_id": created.id})
    return created


@router.get("/usage")
def usage(key: CurrentApiKey, session: SyncDB) -> CallsOut:
    """What was called so far; asking is free."""
    row = session.scalars(
        select(Usage).where(Usage.org_id == key.org_id, Usage.feature == FEATURE)
    ).one()
    return CallsOut.model_validate(row, from_attributes=True)


@router.get("/weeks")
def weeks(key: MeteredKey, session: SyncDB) -> list[Week]:
    """The organisation's planned weeks."""
    rows = session.scalars(select(Plan).where(Plan.org_id == key.org_id).order_by(Plan.week))
    return [Week.model_validate(row, from_attributes=True) for row in rows]


@router.post("/keys/rotate", status_code=201)
def rotate(key: CurrentApiKey, session: SyncDB) -> KeyOut:
    """Exchange a key for a new one; the old one is refused from now on."""
    created = _add_key(session, key.org_id)
    key.revoked_at = datetime.now(timezone.utc)
    session.commit()
    logger.info("key rotated", extra={"key_id": created.id})
    return created


def _add_key(session: Session, org_id: str) -> KeyOut:
    created = KeyOut(id=f"key-{secrets.token_hex(6)}", key=new_token())
    session.add(ApiKey(digest=digest(created.key), id=created.id, org_id=org_id))
    return created
