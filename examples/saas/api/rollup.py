"""The nightly job `python -m api.rollup`: one process that works for every organisation in turn."""

import logging

from sqlalchemy import func, select

from .database import SessionLocal
from .jobs import job
from .models import Invoice, Organisation
from .optional_identity import acting_for, operation_block

logger = logging.getLogger(__name__)


@job("billing.rollup", "0 6 1 * *", max_runtime=600)
def run() -> None:
    """Report what each organisation owes."""
    with SessionLocal() as session:
        organisations = session.scalars(select(Organisation.id)).all()
    for org_id in organisations:
        with acting_for(org_id), operation_block("billing.sum"):
            _report(org_id)


def _report(org_id: str) -> None:
    open_invoices = select(func.sum(Invoice.amount_cents)).where(
        Invoice.org_id == org_id, Invoice.status == "open"
    )
    with SessionLocal() as session:
        owed = session.scalar(open_invoices) or 0
    logger.info("rolled up", extra={"owed_cents": owed})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
