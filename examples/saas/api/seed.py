"""Create the tables and fill them, once: the app does it when it first starts."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.orm import Session

from .database import engine
from .models import (
    ApiKey,
    AuditNote,
    Base,
    Invoice,
    Item,
    Organisation,
    Payslip,
    Plan,
    QueuedPlan,
    Shift,
    Subscription,
    Usage,
    User,
)
from .passwords import digest, hash_password
from .people import CUSTOMERS, PASSWORD, Customer, api_key, user_id

# Made with all others in one transaction: when it is there, so is everything.
LAST_TABLE = QueuedPlan.__tablename__
FIRST_WEEK = date(2026, 11, 2)
EXPORT_QUOTA = {"free": 3, "team": 200, "enterprise": 2_000}
CALL_QUOTA = {"free": 2, "team": 1_000, "enterprise": 10_000}
HOURLY_CENTS = {"admin": 4_200, "planner": 3_100, "member": 2_300}
LAST_MONTH = "2026-10"
# Older than any audit note is kept.
LONG_AGO = datetime(2023, 1, 9, 8, 30, tzinfo=timezone.utc)
OLD_NOTES = 4
# Their records are needed in court.
ON_HOLD = ("org-depot",)
# A number all programs that fill this database agree on.
FILL_LOCK = 7_205_116


def ensure(target: Engine = engine) -> None:
    """Create and fill the tables unless they are there; safe when several workers start at once."""
    if inspect(target).has_table(LAST_TABLE):
        return
    with target.connect() as connection:
        _lock(connection)
        if not inspect(connection).has_table(LAST_TABLE):
            Base.metadata.create_all(connection)
            _fill(Session(connection))
        connection.commit()


def _lock(connection: Connection) -> None:
    """Let one process fill at a time, until its transaction ends."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({FILL_LOCK})")


def _fill(session: Session) -> None:
    session.add_all(
        Organisation(id=c.id, name=c.name, plan=c.plan, legal_hold=c.id in ON_HOLD)
        for c in CUSTOMERS
    )
    session.flush()
    session.add_all(user for customer in CUSTOMERS for user in _users(customer))
    session.flush()
    for number, customer in enumerate(CUSTOMERS):
        session.add_all(_belongings(customer, number))
        session.add_all(_past(customer))
        session.flush()
        session.add_all(_shifts(session, customer))
    session.flush()


def _users(customer: Customer) -> Iterator[User]:
    for index, person in enumerate(customer.people):
        yield User(
            id=user_id(customer, index),
            org_id=customer.id,
            name=person.name,
            email=person.email,
            role=person.role,
            password_hash=hash_password(PASSWORD),
            # The last hired has no wage yet: a payroll run must say so and pay the others.
            hourly_cents=HOURLY_CENTS[person.role] if index < len(customer.people) - 1 else None,
        )


def _belongings(customer: Customer, number: int) -> Iterator[Base]:
    yield ApiKey(
        digest=digest(api_key(customer)),
        id=f"key-{number + 1}",
        org_id=customer.id,
        last_used_at=None,
    )
    yield Usage(org_id=customer.id, feature="exports", quota=EXPORT_QUOTA[customer.plan])
    yield Usage(org_id=customer.id, feature="api_calls", quota=CALL_QUOTA[customer.plan])
    yield Item(org_id=customer.id, sku="apron", stock=100)
    yield Item(org_id=customer.id, sku="badge", stock=2)
    yield Item(org_id=customer.id, sku="gloves", stock=0)
    for kind in ("caldav", "ics"):
        yield Subscription(org_id=customer.id, kind=kind)
    for week in range(2):
        yield Plan(org_id=customer.id, week=FIRST_WEEK + timedelta(weeks=week))
    # The free customer has no invoices yet: /billing/forecast does not expect that.
    if customer.plan != "free":
        yield Invoice(org_id=customer.id, number=f"2026-{number}-1", amount_cents=48_000)
        yield Invoice(org_id=customer.id, number=f"2026-{number}-2", amount_cents=910_000)


def _past(customer: Customer) -> Iterator[Base]:
    """Audit notes whose time is over, and a month of payslips the bank has not got yet.

    The first person took unpaid leave, and the last one's slip was booked the wrong way round.
    """
    for number in range(OLD_NOTES):
        when = LONG_AGO + timedelta(days=number)
        yield AuditNote(org_id=customer.id, user_id="-", action="plan.published", created_at=when)
    amounts = [0, *(250_000 for _ in customer.people[2:]), -12_000]
    for index, amount in enumerate(amounts):
        yield Payslip(
            org_id=customer.id,
            user_id=user_id(customer, index),
            month=LAST_MONTH,
            amount_cents=amount,
        )


def _shifts(session: Session, customer: Customer) -> Iterator[Shift]:
    for plan in session.query(Plan).filter_by(org_id=customer.id).all():
        for day in range(5):
            for index in range(len(customer.people)):
                yield Shift(
                    plan_id=plan.id,
                    assignee_id=user_id(customer, index),
                    day=plan.week + timedelta(days=day),
                    hours=8.0 - index,
                )


if __name__ == "__main__":
    ensure()
