"""Who is signed in holds nothing that somebody else waits for."""

from __future__ import annotations

from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy import Engine, select
from sqlalchemy.ext.asyncio import create_async_engine

from examples.saas.api.database import SessionLocal, make_async_sessions
from examples.saas.api.models import Token, User
from examples.saas.api.passwords import digest
from examples.saas.api.security import get_current_user, get_token

SECRET = "the token of this test"


async def test_signing_in_gives_the_connection_back(shop: Engine) -> None:
    """With one connection for all, a stream behind the sign-in can still store what it said."""
    with SessionLocal.begin() as session:
        user = session.scalars(select(User)).first()
        assert user is not None
        session.add(Token(digest=digest(SECRET), user_id=user.id))
    url = f"sqlite+aiosqlite:///{shop.url.database}"
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=1)
    sessions = make_async_sessions(engine)
    bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=SECRET)
    async with sessions() as request, sessions() as stream:
        signed_in = await get_current_user(await get_token(bearer, request), request)
        assert await stream.scalar(select(User.email).where(User.id == signed_in.id))
        assert signed_in.role
    await engine.dispose()
