"""What must be on spans and logs, worked out here from the documented rules and not by the shim."""

from __future__ import annotations

import base64
import hashlib
import hmac

from .apps.people import Person
from .traffic import Answered

Identity = dict[str, str]
KEYS = (
    "saas.org.id",
    "user.hash",
    "user.id",
    "saas.request.id",
    "saas.actor.type",
    "saas.actor.role",
    "saas.actor.hash",
    "saas.plan",
)
"""Every attribute that says who or which request."""


def user_hash(secret: str, person: Person) -> str:
    """``<key id>.<base64url HMAC-SHA256(derived key, length-prefixed(purpose, organisation, user))>``."""
    key = hmac.digest(secret.encode(), b"otel-shim/pseudonym/v1", "sha256")
    key_id = _text(hashlib.sha256(b"otel-shim/key-id/v1" + key).digest())[:6]
    parts = [part.encode() for part in ("user", person.org_id, person.id)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"{key_id}.{_text(hmac.digest(key, message, 'sha256'))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def identity(answered: Answered, secret: str) -> Identity:
    """All that spans and logs of a request must say about who, and nothing else."""
    person = answered.plan.person
    if person is None:
        return {"saas.actor.type": "anonymous", "saas.request.id": answered.request_id}
    return {
        "saas.org.id": person.org_id,
        "user.hash": user_hash(secret, person),
        "saas.actor.type": "user",
        "saas.actor.role": person.role,
        "saas.plan": person.plan,
        "saas.request.id": answered.request_id,
    }


def secrets_of(person: Person) -> tuple[str, ...]:
    """What must never be seen of a person."""
    return person.id, person.name, person.email, person.token
