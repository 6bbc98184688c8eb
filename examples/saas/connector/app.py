"""The application: `uvicorn --app-dir examples/saas connector.app:app --port 8001`."""

import asyncio
import logging
import time
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from . import deliveries, feeds, models

logger = logging.getLogger(__name__)
app = FastAPI(title="Partner connector")
for router in (models.router, feeds.router, deliveries.router):
    app.include_router(router)

CARD_LIMIT_CENTS = 500_000
MAILBOX_SECONDS = 0.002
BANK_SECONDS = 0.004


class Event(BaseModel):
    """One calendar entry."""

    day: str
    hours: float


class Events(BaseModel):
    """Calendar entries of one person."""

    events: list[Event]


class Charge(BaseModel):
    """A payment to take."""

    invoice: str
    amount_cents: int


class Reference(BaseModel):
    """What the partner calls the thing it made."""

    reference: str


@app.get("/health")
async def health() -> dict[str, str]:
    """For load balancers."""
    return {"status": "ok"}


@app.post("/calendar/plans/{plan_id}/events", status_code=201)
async def add_events(plan_id: int, body: Events) -> Reference:
    """Write entries into a calendar, one mailbox round trip each."""
    for _ in body.events:
        await asyncio.sleep(MAILBOX_SECONDS)
    logger.info("calendar updated", extra={"plan_id": plan_id, "entries": len(body.events)})
    return Reference(reference=f"cal-{uuid4().hex[:8]}")


@app.post("/payments/charges", status_code=201)
def charge(body: Charge) -> Reference:
    """Ask the bank; 402 above the card's limit."""
    time.sleep(BANK_SECONDS)
    if body.amount_cents > CARD_LIMIT_CENTS:
        raise HTTPException(402, "the bank declined")
    return Reference(reference=f"pay-{uuid4().hex[:8]}")


@app.get("/calendar/status")
async def status() -> dict[str, bool]:
    """Whether calendars can be written to."""
    return {"writable": True}
