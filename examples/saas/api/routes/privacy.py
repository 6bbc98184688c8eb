"""What the GDPR gives people: a copy of their data, and its deletion. Done in the background."""

import logging
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends
from pydantic import BaseModel

from .. import privacy
from ..database import SyncDB
from ..errors import AppError
from ..models import PrivacyRequest
from ..security import CurrentUser

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/privacy", tags=["privacy"])


class NewRequest(BaseModel):
    """What somebody asks for."""

    kind: Literal["export", "delete"]


class RequestOut(BaseModel):
    """A request and how far it is; the audit record proves that it was made."""

    id: str
    kind: str
    status: str
    audit_record_id: str


@router.post("/requests", status_code=202)
def request(
    new: NewRequest, current_user: CurrentUser, session: SyncDB, background: BackgroundTasks
) -> RequestOut:
    """Ask for a copy or for deletion; always about the caller's own data."""
    made = privacy.open_request(session, current_user, new.kind)
    background.add_task(privacy.process, made.id)
    return RequestOut.model_validate(made, from_attributes=True)


def get_request(request_id: str, current_user: CurrentUser, session: SyncDB) -> PrivacyRequest:
    """One of the caller's own requests."""
    found = session.get(PrivacyRequest, request_id)
    if found is None or found.user_id != current_user.id:
        raise AppError(404, "request_not_found", "no such request")
    return found


OwnRequest = Annotated[PrivacyRequest, Depends(get_request)]


@router.get("/requests/{request_id}")
def status(own: OwnRequest) -> RequestOut:
    """How far a request is."""
    return RequestOut.model_validate(own, from_attributes=True)


@router.get("/requests/{request_id}/result")
def result(own: OwnRequest) -> dict[str, Any]:
    """The copy, or the numbers of what was deleted; 409 until it is done."""
    if own.result is None:
        raise AppError(409, "request_open", "not done yet; ask again")
    return own.result
