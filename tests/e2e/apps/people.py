"""Who uses the help desk: twelve organisations with four agents each, made up from numbers."""

from __future__ import annotations

from dataclasses import dataclass

ORGANISATIONS = 12
AGENTS_EACH = 4
PLANS = ("free", "team", "enterprise")
FOREIGN_TOKEN = "tok-nobody"


@dataclass(frozen=True)
class Person:
    """One agent; ``token`` is what a client sends."""

    id: str
    org_id: str
    role: str
    plan: str
    name: str
    email: str
    token: str


def _person(org: int, agent: int) -> Person:
    number = f"{org:02d}{agent}"
    return Person(
        id=f"agent-{number}",
        org_id=f"org-{org:02d}",
        role="admin" if agent == 0 else "member",
        plan=PLANS[org % len(PLANS)],
        name=f"Josephine Quill{number}",
        email=f"josephine.quill{number}@customer{org:02d}.example",
        token=f"tok-{number}",
    )


PEOPLE = [_person(org, agent) for org in range(ORGANISATIONS) for agent in range(AGENTS_EACH)]
ADMINS = [person for person in PEOPLE if person.role == "admin"]
MEMBERS = [person for person in PEOPLE if person.role != "admin"]
