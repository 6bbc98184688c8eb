"""Create the tables and fill them, once: the app does it when it first starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Engine, inspect
from sqlalchemy.orm import Session

from .database import engine
from .models import ApiKey, AuditNote, Base, Invoice, Organisation, Plan, Shift, Usage, User
from .passwords import digest, hash_password

PASSWORD = "roster-2026"  # every seeded person's
# Made with all others in one transaction: when it is there, so is everything.
LAST_TABLE = AuditNote.__tablename__
FIRST_WEEK = date(2026, 11, 2)
EXPORT_QUOTA = {"free": 3, "team": 200, "enterprise": 2_000}


@dataclass(frozen=True, slots=True)
class Person:
    """A seeded person; personal data that must never reach telemetry."""

    name: str
    email: str
    role: str


@dataclass(frozen=True, slots=True)
class Customer:
    """A seeded organisation."""

    id: str
    name: str
    plan: str
    people: tuple[Person, ...]


CUSTOMERS = (
    Customer(
        "org-bakery",
        "Nordwind Bakery",
        "team",
        (
            Person("Ingrid Halvorsen", "ingrid.halvorsen@nordwind-bakery.example", "admin"),
            Person("Tomasz Zielinski", "tomasz.zielinski@nordwind-bakery.example", "planner"),
            Person("Aiko Tanabe", "aiko.tanabe@nordwind-bakery.example", "member"),
            Person("Lucia Ferrante", "lucia.ferrante@nordwind-bakery.example", "member"),
        ),
    ),
    Customer(
        "org-clinic",
        "Clinique du Parc",
        "enterprise",
        (
            Person("Amélie Rousseau", "amelie.rousseau@clinique-du-parc.example", "admin"),
            Person("Kwame Mensah", "kwame.mensah@clinique-du-parc.example", "planner"),
            Person("Sofia Lindqvist", "sofia.lindqvist@clinique-du-parc.example", "planner"),
            Person("Ravi Chandran", "ravi.chandran@clinique-du-parc.example", "member"),
        ),
    ),
    Customer(
        "org-hotel",
        "Hotel Miramar",
        "team",
        (
            Person("Beatriz Carvalho", "beatriz.carvalho@hotel-miramar.example", "admin"),
            Person("Declan O'Rourke", "declan.orourke@hotel-miramar.example", "planner"),
            Person("Yusuf Demirci", "yusuf.demirci@hotel-miramar.example", "member"),
        ),
    ),
    Customer(
        "org-theatre",
        "Lantern Theatre",
        "free",
        (
            Person("Eleanor Whitcombe", "eleanor.whitcombe@lantern-theatre.example", "admin"),
            Person("Mateus Figueira", "mateus.figueira@lantern-theatre.example", "planner"),
            Person("Hana Novotna", "hana.novotna@lantern-theatre.example", "member"),
        ),
    ),
    Customer(
        "org-depot",
        "Kestrel Logistics",
        "enterprise",
        (
            Person("Priyanka Deshmukh", "priyanka.deshmukh@kestrel-logistics.example", "admin"),
            Person("Olu Adebayo", "olu.adebayo@kestrel-logistics.example", "planner"),
            Person("Magnus Eriksen", "magnus.eriksen@kestrel-logistics.example", "member"),
        ),
    ),
)


def api_key(customer: Customer) -> str:
    """The partner key of a seeded organisation."""
    return f"key-{customer.id}-9c41"


def user_id(customer: Customer, index: int) -> str:
    """The id of a seeded person."""
    return f"usr-{customer.id.removeprefix('org-')}-{index + 1}"


def ensure(target: Engine = engine) -> None:
    """Create and fill the tables unless they are there; safe when several workers start at once."""
    if inspect(target).has_table(LAST_TABLE):
        return
    with target.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if not inspect(connection).has_table(LAST_TABLE):
            Base.metadata.create_all(connection)
            _fill(Session(connection))
        connection.commit()


def _fill(session: Session) -> None:
    session.add_all(Organisation(id=c.id, name=c.name, plan=c.plan) for c in CUSTOMERS)
    session.flush()
    session.add_all(user for customer in CUSTOMERS for user in _users(customer))
    session.flush()
    for number, customer in enumerate(CUSTOMERS):
        session.add_all(_belongings(customer, number))
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
        )


def _belongings(customer: Customer, number: int) -> Iterator[Base]:
    yield ApiKey(
        digest=digest(api_key(customer)),
        id=f"key-{number + 1}",
        org_id=customer.id,
        last_used_at=None,
    )
    yield Usage(org_id=customer.id, feature="exports", quota=EXPORT_QUOTA[customer.plan])
    for week in range(2):
        yield Plan(org_id=customer.id, week=FIRST_WEEK + timedelta(weeks=week))
    # The free customer has no invoices yet: /billing/forecast does not expect that.
    if customer.plan != "free":
        yield Invoice(org_id=customer.id, number=f"2026-{number}-1", amount_cents=48_000)
        yield Invoice(org_id=customer.id, number=f"2026-{number}-2", amount_cents=910_000)


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
