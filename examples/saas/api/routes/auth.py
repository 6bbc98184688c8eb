"""Sign in, look who you are, sign out."""

import logging
from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import BaseModel
from sqlalchemy import select

from ..database import AsyncDB, SyncDB
from ..errors import AppError
from ..models import Token, User
from ..optional_identity import bind_user
from ..passwords import digest, new_token, password_matches
from ..security import CurrentToken, CurrentUser

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/auth", tags=["auth"])


class TokenOut(BaseModel):
    """A bearer token."""

    access_token: str
    token_type: str = "bearer"


class Me(BaseModel):
    """The signed-in user."""

    id: str
    name: str
    email: str
    role: str
    org_id: str


@router.post("/login")
def login(
    email: Annotated[str, Body()], password: Annotated[str, Body()], session: SyncDB
) -> TokenOut:
    """Exchange email and password for a token; 401 when they do not match."""
    user = session.scalar(select(User).where(User.email == email))
    if user is None or not password_matches(password, user.password_hash):
        # Many backends log this; telemetry must cope with the address in it.
        logger.warning("login failed for %s", email, extra={"error_code": "bad_credentials"})
        raise AppError(401, "bad_credentials", "email or password is wrong")
    bind_user(user.org_id, user.id, user.role, user.organisation.plan)
    token = new_token()
    session.add(Token(digest=digest(token), user_id=user.id))
    session.commit()
    logger.info("signed in")
    return TokenOut(access_token=token)


@router.get("/me")
async def me(current_user: CurrentUser) -> Me:
    """The signed-in user."""
    return Me.model_validate(current_user, from_attributes=True)


@router.post("/logout", status_code=204)
async def logout(token: CurrentToken, current_user: CurrentUser, session: AsyncDB) -> None:
    """Forget the token."""
    await session.delete(token)
    await session.commit()
    logger.info("signed out", extra={"role": current_user.role})
