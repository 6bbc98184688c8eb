"""Requests of every kind, by many people at once, and what each must leave behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from .apps.people import ADMINS, FOREIGN_TOKEN, MEMBERS, PEOPLE, Person

TRACE_PARENT = "00-{trace_id}-00f067aa0ba902b7-01"


@dataclass(frozen=True)
class Kind:
    """One kind of request: what is sent, and what it must give.

    ``queries`` and ``calls`` count the client spans of database and HTTP. ``who`` is the group of
    people that sends it; without one the request is anonymous. ``late`` is how many of the queries end
    before the shim can know who asks. ``notes`` counts the lines that the application logs once it
    knows who asks.
    """

    path: str
    status: int
    queries: int = 0
    calls: int = 0
    method: str = "GET"
    who: tuple[Person, ...] = ()
    token: str | None = None
    route: str | None = None
    body: str | None = None
    error: str | None = None
    late: int = 0
    notes: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


ANY, ADMIN, MEMBER = tuple(PEOPLE), tuple(ADMINS), tuple(MEMBERS)
KINDS = (
    Kind("/sync", 200, 3, who=ANY, route="/sync", late=1, notes=1),
    Kind("/async", 200, 3, who=ANY, route="/async", late=1, notes=1),
    Kind("/stream", 200, 4, who=ANY, route="/stream", late=1, notes=3),
    Kind("/stream/sync", 200, 3, who=ANY, route="/stream/sync", late=1, notes=2),
    Kind("/background", 202, 3, method="POST", who=ANY, route="/background", late=1, notes=2),
    Kind("/together", 200, 6, who=ANY, route="/together", late=1, notes=1),
    Kind("/partner", 200, 1, 2, who=ANY, route="/partner", late=1, notes=1),
    Kind("/partner/sync", 200, 1, 1, who=ANY, route="/partner/sync", late=1, notes=1),
    Kind("/quota", 409, 1, who=ANY, route="/quota", error="quota.exceeded", late=1, notes=1),
    Kind("/boom", 500, 2, who=ANY, route="/boom", error="500", late=1, notes=1),
    Kind("/boom/sync", 500, 1, who=ANY, route="/boom/sync", error="500", late=1, notes=1),
    Kind("/admin", 200, 1, who=ADMIN, route="/admin", late=1, notes=1),
    Kind("/admin", 403, 1, who=MEMBER, route="/admin", error="403", late=1),
    Kind("/tickets/12", 200, 2, who=ANY, route="/tickets/{ticket_id}", late=1, notes=1),
    Kind("/tickets/2000000", 404, 1, who=ANY, route="/tickets/{ticket_id}", error="404", late=1),
    Kind("/tickets/twelve", 422, 1, who=ANY, route="/tickets/{ticket_id}", error="422", late=1),
    Kind(
        "/tickets",
        201,
        2,
        method="POST",
        who=ANY,
        route="/tickets",
        body='{"title": "t"}',
        late=1,
        notes=1,
    ),
    Kind(
        "/tickets", 422, 1, method="POST", who=ANY, route="/tickets", body="{}", error="422", late=1
    ),
    Kind("/v2/me", 200, 2, who=ANY, route="/v2/me", late=1, notes=1),
    Kind("/legacy/me", 200, 2, who=ANY, late=1, notes=1),
    Kind("/health", 200, route="/health"),
    Kind("/sync", 401, route="/sync", error="401"),
    Kind("/async", 401, 1, token=FOREIGN_TOKEN, route="/async", error="401", late=1),
    Kind("/nowhere", 404, error="404"),
    Kind("/sync", 405, method="DELETE", route="/sync", error="405"),
)


@dataclass(frozen=True)
class Plan:
    """One request to send. ``trace_id`` is the caller's own, where it brings a trace context."""

    kind: Kind
    person: Person | None
    marker: str
    request_id: str | None
    trace_id: str | None

    def headers(self) -> dict[str, str]:
        """What it says about itself."""
        token = self.person.token if self.person is not None else self.kind.token
        chosen = {
            "X-Marker": self.marker,
            "X-Request-Id": self.request_id,
            "Authorization": f"Bearer {token}" if token else None,
            "traceparent": TRACE_PARENT.format(trace_id=self.trace_id) if self.trace_id else None,
            "Content-Type": "application/json" if self.kind.body else None,
        }
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Answered:
    """A request with its answer: ids as the response's headers say."""

    plan: Plan
    status: int
    request_id: str
    trace_id: str


def plans(count: int, run: str) -> list[Plan]:
    """So many requests over all kinds and people.

    Every other one names its request id, every fifth continues a trace; ``run`` keeps the ids of one
    run from those of another.
    """
    chance = random.Random(run)
    made = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        person = kind.who[number * 5 % len(kind.who)] if kind.who else None
        made.append(
            Plan(
                kind,
                person,
                marker=f"m{number}",
                request_id=f"client-{chance.getrandbits(64):016x}" if number % 2 else None,
                trace_id=f"{chance.getrandbits(128):032x}" if number % 5 == 0 else None,
            )
        )
    return made


async def send(client: httpx.AsyncClient, plan: Plan) -> Answered:
    """Send one request and read its answer to the end."""
    answer = await client.request(
        plan.kind.method, plan.kind.path, headers=plan.headers(), content=plan.kind.body
    )
    headers = answer.headers
    assert headers.get_list("x-request-id") == [headers["x-request-id"]], plan
    assert headers.get_list("x-trace-id") == [headers["x-trace-id"]], plan
    return Answered(plan, answer.status_code, headers["x-request-id"], headers["x-trace-id"])


async def _send_all(url: str, chosen: Sequence[Plan]) -> list[Answered]:
    limits = httpx.Limits(max_connections=len(chosen))
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        return list(await asyncio.gather(*(send(client, plan) for plan in chosen)))


def send_all(url: str, chosen: Sequence[Plan]) -> list[Answered]:
    """Send them all at once."""
    return asyncio.run(_send_all(url, chosen))
