"""Who is calling. Each step asks the database, so its spans end before the user is known."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Annotated

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select

from .database import AsyncDB, SyncDB
from .errors import AppError
from .models import ApiKey, Token, User
from .optional_identity import bind_api_key
from .passwords import digest

bearer = HTTPBearer(auto_error=False)
partner_key = APIKeyHeader(name="X-Api-Key", auto_error=False)


async def get_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    session: AsyncDB,
) -> Token:
    """The stored token of the request; 401 without a valid one."""
    if credentials is None:
        raise AppError(401, "token_missing", "sign in first")
    token = await session.get(Token, digest(credentials.credentials))
    if token is None:
        raise AppError(401, "token_invalid", "sign in again")
    return token


async def get_current_user(token: Annotated[Token, Depends(get_token)], session: AsyncDB) -> User:
    """The user whose token it is. The connection goes back to the pool.

    Kept, it would be held until the answer is sent: some streams at once, each of which needs another to store
    what it said, would then wait for each other.
    """
    user = await session.scalar(select(User).where(User.id == token.user_id))
    if user is None:
        raise AppError(401, "token_invalid", "sign in again")
    await session.commit()
    return user


async def current_user(user: Annotated[User, Depends(get_current_user)]) -> User:
    """The user, if still active; 403 otherwise."""
    if not user.active:
        raise AppError(403, "user_inactive", "this account was closed")
    return user


CurrentToken = Annotated[Token, Depends(get_token)]
CurrentUser = Annotated[User, Depends(current_user)]


def require_role(*roles: str) -> Callable[[User], Awaitable[None]]:
    """A dependency that lets only these roles pass; 403 otherwise."""

    async def check(current_user: CurrentUser) -> None:
        if current_user.role not in roles:
            raise AppError(403, "role_required", f"only for: {', '.join(roles)}")

    return check


def current_api_key(key: Annotated[str | None, Depends(partner_key)], session: SyncDB) -> ApiKey:
    """The partner's key. Commits its last use, after which the object's attributes are expired."""
    stored = session.get(ApiKey, digest(key)) if key else None
    if stored is None or stored.revoked_at is not None:
        raise AppError(401, "api_key_invalid", "send a valid X-Api-Key")
    bind_api_key(stored.org_id, stored.id)
    stored.last_used_at = datetime.now(timezone.utc)
    session.commit()
    return stored


CurrentApiKey = Annotated[ApiKey, Depends(current_api_key)]
