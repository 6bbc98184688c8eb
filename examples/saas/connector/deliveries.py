"""Deliveries of material: numbered from 1, one more every while."""

import time
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel

from . import faults

router = APIRouter(prefix="/material", tags=["material"])

STARTED = time.time()
EVERY_SECONDS = 1.0
BEFORE_START = 120
CUSTOMERS = ("org-bakery", "org-clinic", "org-hotel", "org-theatre", "org-depot")
# Among the first ones some went to a company that is no customer, and some held what nobody stocks.
LOST_EVERY, STRAY_EVERY = 20, 15
MOST = 5


class Delivery(BaseModel):
    """What arrived for whom; an empty parcel has a quantity of 0."""

    number: int
    org_id: str
    sku: str
    quantity: int


class Page(BaseModel):
    """Some deliveries, and the number of the newest there is."""

    newest: int
    deliveries: list[Delivery]


@router.get("/deliveries")
def deliveries(after: int = 0, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> Page:
    """Those after a number."""
    if faults.on("deliveries down"):
        raise HTTPException(503, "try again later")
    newest = BEFORE_START + int((time.time() - STARTED) / EVERY_SECONDS)
    numbers = range(after + 1, min(newest, after + limit) + 1)
    return Page(newest=newest, deliveries=[_delivery(number) for number in numbers])


def _delivery(number: int) -> Delivery:
    early = number <= BEFORE_START
    lost = early and number % LOST_EVERY == 0
    stray = early and number % STRAY_EVERY == 0
    return Delivery(
        number=number,
        org_id="org-nowhere" if lost else CUSTOMERS[number % len(CUSTOMERS)],
        sku="stapler" if stray else "gloves",
        quantity=number // len(CUSTOMERS) % MOST,
    )
