"""The job `payroll.export`: payslips as files for the bank, one for each organisation."""

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, update

from .database import SessionLocal
from .jobs import Processing, job
from .models import Organisation, Payslip
from .optional_identity import acting_for, operation_block
from .optional_operations import job_backlog, job_items
from .settings import settings

PROCESSING = Processing("ropa-061", "contract", "r10y")
BATCH = 200
WRITTEN, FILTERED, REJECTED = "written", "filtered", "rejected"
WAITING = Payslip.export.is_(None)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slip:
    """A payslip and what becomes of it."""

    id: int
    user_id: str
    month: str
    amount_cents: int

    @property
    def fate(self) -> str:
        """There is nothing to pay for no amount, and no bank takes a negative one."""
        if self.amount_cents == 0:
            return FILTERED
        return WRITTEN if self.amount_cents > 0 else REJECTED


@job("payroll.export", "30 4 * * *", max_runtime=900, critical=True, processing=PROCESSING)
def run() -> None:
    """Export what waits, organisation by organisation."""
    before = _waiting()
    for org_id in _organisations():
        with acting_for(org_id, **PROCESSING.references()):
            _export(org_id)
    job_backlog(before=before, after=_waiting())


def _waiting() -> int:
    with SessionLocal() as session:
        return session.scalar(select(func.count()).select_from(Payslip).where(WAITING)) or 0


def _organisations() -> Sequence[str]:
    with SessionLocal() as session:
        return session.scalars(select(Organisation.id).order_by(Organisation.id)).all()


def _export(org_id: str) -> None:
    with operation_block("payroll.extract"):
        slips = _extract(org_id)
    with operation_block("payroll.transform"):
        sorted_out = {fate: [slip for slip in slips if slip.fate == fate] for fate in _fates()}
    with operation_block("payroll.load"):
        _load(org_id, sorted_out)
    counts = {fate: len(found) for fate, found in sorted_out.items()}
    job_items(read=len(slips), **counts)
    if slips:
        logger.info("payslips exported", extra={"read": len(slips), **counts})


def _fates() -> Iterator[str]:
    yield from (WRITTEN, FILTERED, REJECTED)


def _extract(org_id: str) -> list[Slip]:
    columns = (Payslip.id, Payslip.user_id, Payslip.month, Payslip.amount_cents)
    statement = select(*columns).where(Payslip.org_id == org_id, WAITING)
    with SessionLocal() as session:
        rows = session.execute(statement.order_by(Payslip.id).limit(BATCH))
        return [Slip(*row) for row in rows]


def _load(org_id: str, sorted_out: dict[str, list[Slip]]) -> None:
    """The file first: when the database then refuses, the same file is made again, not a second one."""
    if sorted_out[WRITTEN]:
        _write(org_id, sorted_out[WRITTEN])
    with SessionLocal.begin() as session:
        for fate, slips in sorted_out.items():
            ids = [slip.id for slip in slips]
            if ids:
                session.execute(update(Payslip).where(Payslip.id.in_(ids)).values(export=fate))


def _write(org_id: str, slips: Sequence[Slip]) -> None:
    """Whole or not at all: under another name until it is complete."""
    settings.exports.mkdir(parents=True, exist_ok=True)
    target = settings.exports / f"payroll-{org_id}-{slips[0].id}.csv"
    unfinished = Path(f"{target}.part")
    with unfinished.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("person", "month", "amount_cents"))
        rows.writerows((slip.user_id, slip.month, slip.amount_cents) for slip in slips)
    unfinished.replace(target)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
