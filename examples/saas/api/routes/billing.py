"""Usage, invoices, payments. Synchronous throughout: these endpoints run on pool threads."""

import logging
from statistics import mean

from fastapi import APIRouter, BackgroundTasks, Depends
from pydantic import BaseModel
from sqlalchemy import select

from .. import partner_service, quota
from ..audit import write_note
from ..database import SyncDB
from ..errors import AppError
from ..models import Invoice, Usage
from ..security import CurrentUser, current_user, require_role

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/billing", tags=["billing"], dependencies=[Depends(current_user)])


class UsageOut(BaseModel):
    """A metered feature."""

    feature: str
    used: int
    quota: int


class InvoiceOut(BaseModel):
    """An invoice."""

    id: int
    number: str
    amount_cents: int
    status: str


class Forecast(BaseModel):
    """What the next invoice may be."""

    amount_cents: int


class Left(BaseModel):
    """How much of a feature is left."""

    left: int


@router.get("/usage")
def usage(current_user: CurrentUser, session: SyncDB) -> list[UsageOut]:
    """What the organisation has used."""
    rows = session.scalars(select(Usage).where(Usage.org_id == current_user.org_id))
    return [UsageOut.model_validate(row, from_attributes=True) for row in rows]


@router.post("/exports", status_code=202)
def request_export(current_user: CurrentUser, session: SyncDB, background: BackgroundTasks) -> Left:
    """Order a payroll export; each counts against the quota, 429 when it is used up."""
    left = quota.consume(session, current_user.org_id, "exports")
    background.add_task(write_note, current_user.org_id, current_user.id, "export.requested")
    return Left(left=left)


@router.get("/invoices")
def invoices(current_user: CurrentUser, session: SyncDB) -> list[InvoiceOut]:
    """The organisation's invoices."""
    rows = session.scalars(select(Invoice).where(Invoice.org_id == current_user.org_id))
    return [InvoiceOut.model_validate(row, from_attributes=True) for row in rows]


@router.post("/invoices/{invoice_id}/pay", dependencies=[Depends(require_role("admin"))])
def pay(invoice_id: int, current_user: CurrentUser, session: SyncDB) -> InvoiceOut:
    """Pay an invoice through the partner; 402 when it declines."""
    invoice = session.get(Invoice, invoice_id)
    if invoice is None or invoice.org_id != current_user.org_id:
        raise AppError(404, "invoice_not_found", "no such invoice")
    receipt = partner_service.charge(invoice.number, invoice.amount_cents)
    invoice.status = "paid"
    session.commit()
    logger.info("invoice paid", extra={"invoice_id": invoice_id, "receipt": receipt.reference})
    return InvoiceOut.model_validate(invoice, from_attributes=True)


@router.get("/forecast")
def forecast(current_user: CurrentUser, session: SyncDB) -> Forecast:
    """The mean of all invoices. Has a bug: an organisation without any gets a 500."""
    amounts = session.scalars(
        select(Invoice.amount_cents).where(Invoice.org_id == current_user.org_id)
    ).all()
    return Forecast(amount_cents=round(mean(amounts)))
