"""The job `material.import`: the partner's deliveries become stock, each exactly once."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import httpx
from pydantic import BaseModel
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from .database import SessionLocal
from .jobs import job
from .models import Cursor, Item, Organisation
from .optional_identity import acting_for, operation_block
from .optional_operations import job_backlog, job_items
from .settings import settings

CURSOR = "material.deliveries"
BATCH = 50
TIMEOUT = httpx.Timeout(10.0)
logger = logging.getLogger(__name__)


class Delivery(BaseModel):
    """What arrived, by the partner's running number."""

    number: int
    org_id: str
    sku: str
    quantity: int


class Page(BaseModel):
    """The next deliveries, and the number of the newest there is."""

    newest: int
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class Sorted:
    """Deliveries by what is to be done with them."""

    wanted: Mapping[str, Sequence[Delivery]]
    filtered: int
    unknown: int


@job("material.import", "every 10m", max_runtime=300)
def run() -> None:
    """Take in the next batch."""
    position = _position()
    with operation_block("material.extract"):
        page = _fetch(position)
    last = max((delivery.number for delivery in page.deliveries), default=position)
    with operation_block("material.transform"):
        deliveries = _sort(page.deliveries)
    with operation_block("material.load"):
        written, rejected = _load(deliveries, last)
    job_items(
        read=len(page.deliveries),
        written=written,
        rejected=rejected + deliveries.unknown,
        filtered=deliveries.filtered,
    )
    job_backlog(before=page.newest - position, after=page.newest - last)
    logger.info("deliveries imported", extra={"read": len(page.deliveries), "stocked": written})


def _position() -> int:
    with SessionLocal() as session:
        return session.scalar(select(Cursor.position).where(Cursor.name == CURSOR)) or 0


def _fetch(position: int) -> Page:
    question = {"after": position, "limit": BATCH}
    with httpx.Client(base_url=settings.connector_url, timeout=TIMEOUT) as client:
        answer = client.get("/material/deliveries", params=question)
    answer.raise_for_status()
    return Page.model_validate(answer.json())


def _sort(deliveries: Iterable[Delivery]) -> Sorted:
    """Nothing is done for empty parcels, and nothing can be for companies that are no customers."""
    with SessionLocal() as session:
        known = frozenset(session.scalars(select(Organisation.id)))
    filtered = unknown = 0
    wanted: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        if delivery.org_id not in known:
            unknown += 1
        elif delivery.quantity == 0:
            filtered += 1
        else:
            wanted[delivery.org_id].append(delivery)
    return Sorted(wanted, filtered, unknown)


def _load(deliveries: Sorted, last: int) -> tuple[int, int]:
    """Stock what is known; stock and cursor change in one transaction, or neither does."""
    written = rejected = 0
    with SessionLocal.begin() as session:
        for org_id, theirs in sorted(deliveries.wanted.items()):
            with acting_for(org_id), operation_block("material.stock"):
                stocked = sum(_stock(session, delivery) for delivery in theirs)
            written += stocked
            rejected += len(theirs) - stocked
        session.merge(Cursor(name=CURSOR, position=last))
    return written, rejected


def _stock(session: Session, delivery: Delivery) -> bool:
    """Whether the organisation has such an item; the version rises, as with every change."""
    item = (Item.org_id == delivery.org_id, Item.sku == delivery.sku)
    more = {"stock": Item.stock + delivery.quantity, "version": Item.version + 1}
    found = session.execute(update(Item).where(*item).values(more).returning(Item.id))
    return found.first() is not None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
