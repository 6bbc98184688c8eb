"""The sample's jobs: what they do to the data, and that their numbers add up."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from examples.saas.api import (
    faults,
    material_import,
    payroll_export,
    privacy_rollup,
    retention,
    schedules,
)
from examples.saas.api.database import SessionLocal
from examples.saas.api.models import AuditNote, Cursor, Item, Payslip, PrivacyRequest
from examples.saas.api.seed import OLD_NOTES, ON_HOLD
from examples.saas.connector import deliveries


class Told:
    """What a job reported."""

    def __init__(self) -> None:
        self.items: Counter[str] = Counter()
        self.backlog: tuple[int, int] | None = None

    def count(self, **counts: int) -> None:
        """As `job_items`."""
        self.items.update(counts)

    def wait(self, before: int, after: int) -> None:
        """As `job_backlog`."""
        self.backlog = (before, after)

    def balanced(self) -> bool:
        """Whether what came in came out, somehow."""
        out = ("written", "rejected", "filtered")
        return self.items["read"] == sum(self.items[name] for name in out)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Told]:
    """Listens to a job's reports."""

    def listen(module: Any) -> Told:
        heard = Told()
        monkeypatch.setattr(module, "job_items", heard.count)
        monkeypatch.setattr(module, "job_backlog", heard.wait)
        return heard

    return listen


def scalar(statement: Any) -> Any:
    """One value from the database."""
    with SessionLocal() as session:
        return session.scalar(statement)


def test_retention_deletes_what_is_old_but_nothing_on_hold(
    shop: Engine, told: Callable[[Any], Told]
) -> None:
    """Four organisations' notes go, the fifth's stay, and each deletion is noted."""
    heard = told(retention)
    retention.run()
    old = select(func.count()).select_from(AuditNote).where(AuditNote.action == "plan.published")
    assert scalar(old) == OLD_NOTES
    assert scalar(old.where(AuditNote.org_id == ON_HOLD[0])) == OLD_NOTES
    noted = select(func.count()).select_from(AuditNote).where(AuditNote.action == "audit.expired")
    assert scalar(noted) == 4
    assert heard.items == {"read": 20, "written": 16, "filtered": 4}
    assert heard.balanced()
    assert heard.backlog == (16, 0)


def test_retention_works_in_batches(
    shop: Engine, told: Callable[[Any], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one run leaves is its backlog."""
    monkeypatch.setattr(retention, "BATCH", 3)
    heard = told(retention)
    retention.run()
    assert heard.backlog == (16, 4)


def test_payroll_is_exported_once(
    shop: Engine, told: Callable[[Any], Told], tmp_path: Path
) -> None:
    """Amounts go to the bank, nothing to pay does not, and a negative amount is refused."""
    heard = told(payroll_export)
    payroll_export.run()
    assert heard.items == {"read": 17, "written": 7, "filtered": 5, "rejected": 5}
    assert heard.balanced()
    assert heard.backlog == (17, 0)
    files = sorted((tmp_path / "exports").iterdir())
    assert len(files) == 5
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    assert len(rows) == 7
    assert {int(row["amount_cents"]) for row in rows} == {250_000}
    again = told(payroll_export)
    payroll_export.run()
    assert not again.items["read"]
    assert sorted((tmp_path / "exports").iterdir()) == files


def test_an_export_that_fails_in_between_is_made_again(
    shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there and the database does not know: the next run makes the same file, not two."""
    with monkeypatch.context() as broken:
        broken.setattr(payroll_export, "update", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            payroll_export.run()
    first = {file.name: file.read_bytes() for file in (tmp_path / "exports").iterdir()}
    assert len(first) == 1
    assert scalar(select(func.count()).where(Payslip.export.is_not(None))) == 0
    payroll_export.run()
    after = {file.name: file.read_bytes() for file in (tmp_path / "exports").iterdir()}
    assert first.items() <= after.items()
    assert len(after) == 5


@pytest.fixture
def partner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partner's deliveries without the network; nothing new arrives meanwhile."""
    monkeypatch.setattr(deliveries, "EVERY_SECONDS", 1e9)

    def fetch(position: int) -> material_import.Page:
        page = deliveries.deliveries(position, material_import.BATCH)
        return material_import.Page.model_validate(page.model_dump())

    monkeypatch.setattr(material_import, "_fetch", fetch)


def gloves() -> int:
    """All organisations' stock of what is delivered."""
    return int(scalar(select(func.sum(Item.stock)).where(Item.sku == "gloves")))


def test_deliveries_become_stock_exactly_once(
    shop: Engine, partner: None, told: Callable[[Any], Told]
) -> None:
    """Three batches take in everything; the numbers are those of the deliveries themselves."""
    backlogs = []
    total: Counter[str] = Counter()
    for _ in range(4):
        heard = told(material_import)
        material_import.run()
        assert heard.balanced()
        backlogs.append(heard.backlog)
        total.update(heard.items)
    assert backlogs == [(120, 70), (70, 20), (20, 0), (0, 0)]
    all_of_them = [deliveries._delivery(number) for number in range(1, 121)]
    lost = [each for each in all_of_them if each.org_id == "org-nowhere"]
    good = [each for each in all_of_them if each not in lost and each.quantity]
    stocked = [each for each in good if each.sku == "gloves"]
    assert gloves() == sum(each.quantity for each in stocked)
    assert total["read"] == 120
    assert total["written"] == len(stocked)
    assert total["rejected"] == len(lost) + len(good) - len(stocked) > 0
    assert total["filtered"] > 0


def test_an_import_that_fails_changes_nothing(
    shop: Engine, partner: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock and cursor are one transaction: the same deliveries come again, and count once."""
    stocked: list[bool] = []

    def stock(session: Any, delivery: Any) -> bool:
        if len(stocked) == 20:
            raise ConnectionError("the database is gone")
        stocked.append(stock_one(session, delivery))
        return stocked[-1]

    stock_one = material_import._stock
    with monkeypatch.context() as broken:
        broken.setattr(material_import, "_stock", stock)
        with pytest.raises(ConnectionError):
            material_import.run()
    assert any(stocked)
    assert gloves() == 0
    assert scalar(select(func.count()).select_from(Cursor)) == 0
    material_import.run()
    assert gloves() > 0


def test_requests_that_a_crash_left_open_are_finished(
    shop: Engine, told: Callable[[Any], Told]
) -> None:
    """Those that are young belong to their request still; copies that had their time are forgotten."""
    now = datetime.now(timezone.utc)
    ages = {"young": timedelta(minutes=1), "late": timedelta(minutes=11), "old": timedelta(days=31)}
    with SessionLocal.begin() as session:
        for name, age in ages.items():
            open_ = name != "old"
            session.add(
                PrivacyRequest(
                    id=name,
                    org_id="org-hotel",
                    user_id="usr-hotel-2",
                    kind="export",
                    status="open" if open_ else "done",
                    audit_record_id="note-1",
                    result=None if open_ else {"person": "somebody"},
                    created_at=now - age,
                )
            )
    heard = told(privacy_rollup)
    privacy_rollup.run()
    with SessionLocal() as session:
        found = {each.id: each for each in session.scalars(select(PrivacyRequest))}
    assert {name: each.status for name, each in found.items()} == {
        "young": "open",
        "late": "done",
        "old": "done",
    }
    assert found["late"].result is not None
    assert found["old"].result is None
    assert heard.items == {"read": 1, "written": 1, "rejected": 0}
    assert heard.backlog == (1, 0)


@pytest.mark.parametrize(
    ("environ", "schedule"),
    [
        ({}, "0 3 * * *"),
        ({"SAAS_SCHEDULE": "every 4s"}, "every 4s"),
        ({"SAAS_SCHEDULE": "every 4s", "SAAS_SCHEDULE_PAYROLL_EXPORT": "5 * * * *"}, "5 * * * *"),
    ],
)
def test_schedules_are_settings(environ: dict[str, str], schedule: str) -> None:
    """A job's own goes over that of all, which goes over the usual one."""
    assert schedules.schedule_of("payroll.export", "0 3 * * *", environ) == schedule


def test_what_a_run_may_take_is_a_setting() -> None:
    """A job's own goes over that of all."""
    environ = {"SAAS_MAX_RUNTIME": "3", "SAAS_MAX_RUNTIME_PAYROLL_EXPORT": "0.5"}
    assert schedules.max_runtime_of("payroll.export", 900, environ) == 0.5
    assert schedules.max_runtime_of("material.import", 300, environ) == 3
    assert schedules.max_runtime_of("material.import", 300, {}) == 300


@pytest.mark.parametrize(
    ("schedule", "seconds"), [("every 90s", 90), ("every 15m", 900), ("every 2d", 172_800)]
)
def test_periods(schedule: str, seconds: int) -> None:
    """Cron has none."""
    assert schedules.period_of(schedule) == timedelta(seconds=seconds)
    assert schedules.period_of("0 3 * * *") is None


def test_faults_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line breaks one job for as long as it is there; another job's line does not."""
    switch = tmp_path / "faults"
    monkeypatch.setenv("SAAS_FAULTS", str(switch))
    ran = []

    @faults.disturbed("payroll.export")
    def run() -> None:
        ran.append(1)

    run()
    switch.write_text("job fail material.import\njob slow 0.01 payroll.export\n")
    run()
    assert faults.seconds("job slow", " payroll.export") == 0.01
    assert faults.seconds("job slow", " material.import") == 0
    switch.write_text("job fail payroll.export\n")
    with pytest.raises(faults.JobFault):
        run()
    switch.unlink()
    run()
    assert len(ran) == 3


def test_without_the_switch_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in production is the function as written."""
    monkeypatch.delenv("SAAS_FAULTS", raising=False)
    assert faults.disturbed("payroll.export")(retention.run) is retention.run


def test_an_unpaid_month_can_be_exported_later(shop: Engine, tmp_path: Path) -> None:
    """A corrected payslip, marked as waiting again, is in the next file."""
    payroll_export.run()
    with SessionLocal.begin() as session:
        session.execute(
            update(Payslip)
            .where(Payslip.export == payroll_export.REJECTED, Payslip.org_id == "org-hotel")
            .values(amount_cents=12_000, export=None)
        )
    payroll_export.run()
    texts = [file.read_text() for file in (tmp_path / "exports").glob("payroll-org-hotel-*.csv")]
    assert sum("12000" in text for text in texts) == 1
