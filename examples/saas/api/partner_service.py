"""Calls to the partner's service: calendar by asyncio, payments by threads."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from .errors import AppError
from .models import Plan, Shift
from .settings import settings

TIMEOUT = httpx.Timeout(10.0)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A payment that went through."""

    reference: str


def make_client() -> httpx.AsyncClient:
    """The asyncio client; made in lifespan."""
    return httpx.AsyncClient(base_url=settings.connector_url, timeout=TIMEOUT)


async def publish_shifts(
    client: httpx.AsyncClient, plan: Plan, shifts: Sequence[Shift]
) -> list[str]:
    """Put each person's shifts into the calendar, all persons at once; return its references."""
    people = sorted({shift.assignee_id for shift in shifts})
    return list(
        await asyncio.gather(
            *(_publish_one(client, plan, [s for s in shifts if s.assignee_id == p]) for p in people)
        )
    )


async def _publish_one(client: httpx.AsyncClient, plan: Plan, shifts: Sequence[Shift]) -> str:
    events = [{"day": shift.day.isoformat(), "hours": shift.hours} for shift in shifts]
    answer = await client.post(f"/calendar/plans/{plan.id}/events", json={"events": events})
    answer.raise_for_status()
    return str(answer.json()["reference"])


def charge(number: str, amount_cents: int) -> Receipt:
    """Take a payment; 402 when the partner declines."""
    with httpx.Client(base_url=settings.connector_url, timeout=TIMEOUT) as client:
        answer = client.post(
            "/payments/charges", json={"invoice": number, "amount_cents": amount_cents}
        )
    if answer.status_code == httpx.codes.PAYMENT_REQUIRED:
        raise AppError(402, "payment_declined", "the payment was declined")
    answer.raise_for_status()
    return Receipt(str(answer.json()["reference"]))
