"""The smallest application with users: one endpoint, one dependency that says who is calling.

It knows nothing of OpenTelemetry. Run it as README.md shows.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

app = FastAPI()


@dataclass(frozen=True)
class User:
    """Somebody who signed in."""

    id: str
    org_id: str
    role: str


USERS = {
    "token-of-ada": User("ada@example.com", "acme", "admin"),
    "token-of-bob": User("bob@example.com", "bolts", "reader"),
}


def get_current_user(authorization: Annotated[str, Header()] = "") -> User:
    """Who is calling; 401 for nobody we know."""
    user = USERS.get(authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(401)
    return user


@app.get("/orders/{number}")
def order(number: int, user: Annotated[User, Depends(get_current_user)]) -> dict[str, object]:
    """Say which order this is, and whose."""
    return {"order": number, "organisation": user.org_id}
