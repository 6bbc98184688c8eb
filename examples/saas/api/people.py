"""The seeded organisations and people. Plain data: the demo reads it too."""

from dataclasses import dataclass

PASSWORD = "roster-2026"  # every seeded person's


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
