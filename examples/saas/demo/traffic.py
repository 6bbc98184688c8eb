"""Requests of many people of several organisations at once, errors and streams included."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping

import httpx

from ..api.people import CUSTOMERS, PASSWORD, Customer, Person, api_key, user_id
from . import journeys
from .driver import NOBODY, Call, Caller, Driver, Step, step

WEEK = "2026-12-07"


async def drive(url: str) -> list[Call]:
    """Everybody's journey, all at once."""
    # A connection each: after an unhandled error uvicorn sends the 500 and then closes the
    # connection, so that the next request on it may fail; and new ones spread over the workers.
    limits = httpx.Limits(max_connections=40, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        driver = Driver(client)
        people = [
            _person(driver, customer, index)
            for customer in CUSTOMERS
            for index in range(len(customer.people))
        ]
        partners = [_partner(driver, customer) for customer in CUSTOMERS]
        await asyncio.gather(*people, *partners, _strangers(driver))
        return driver.calls


async def _person(driver: Driver, customer: Customer, index: int) -> None:
    person = customer.people[index]
    caller = Caller("user", customer.id, user_id(customer, index))
    credentials = {"email": person.email, "password": PASSWORD}
    login = await driver.send(caller, step("POST", "/auth/login", 200, json=credentials))
    auth = {"Authorization": f"Bearer {login.json()['access_token']}"}
    own_id = {"X-Request-Id": f"demo-{secrets.token_hex(8)}"}
    await driver.send(caller, step("GET", "/auth/me", 200), auth | own_id)
    plans = await driver.send(caller, step("GET", "/planning/plans", 200), auth)
    ids = [int(plan["id"]) for plan in plans.json()]
    for todo in journey(customer, person, caller.user_id or "", ids):
        await driver.send(caller, todo, auth)
    await journeys.of_everybody(driver, caller, auth, person.role)
    if person.role == "admin":
        await _pay(driver, caller, auth)
        await journeys.of_admins(driver, caller, auth, customer.plan)
    await driver.send(caller, step("POST", "/auth/logout", 204), auth)
    await driver.send(caller, step("GET", "/auth/me", 401, signed_in=False), auth)


async def _pay(driver: Driver, caller: Caller, auth: Mapping[str, str]) -> None:
    invoices = await driver.send(caller, step("GET", "/billing/invoices", 200), auth)
    for invoice in invoices.json():
        # The partner declines what is above the card's limit.
        status = 402 if invoice["amount_cents"] > 500_000 else 200
        await driver.send(
            caller, step("POST", f"/billing/invoices/{invoice['id']}/pay", status), auth
        )


def journey(customer: Customer, person: Person, own_id: str, plans: list[int]) -> Iterator[Step]:
    """What a person does between signing in and paying or signing out."""
    plan = f"/planning/plans/{plans[0]}"
    somebody_elses = 1 if 1 not in plans else 3
    yield step("GET", f"/planning/plans?assignee={person.email}", 200)
    yield from _planning(person, own_id, plan)
    yield step("GET", f"{plan}/export.csv", 200)
    yield step("GET", f"/planning/plans/{somebody_elses}", 404)
    yield step("DELETE", plan, 405, signed_in=False)
    yield step("GET", "/billing/usage", 200)
    yield step("POST", "/billing/exports", *((202, 429) if customer.plan == "free" else (202,)))
    yield step("POST", "/billing/exports", *((202, 429) if customer.plan == "free" else (202,)))
    yield step("GET", "/billing/forecast", 500 if customer.plan == "free" else 200)


def _planning(person: Person, own_id: str, plan: str) -> Iterator[Step]:
    new = {"week": WEEK, "shifts": [{"assignee_id": own_id, "day": WEEK, "hours": 6}]}
    if person.role == "member":
        yield step("POST", "/planning/plans", 403, json=new)
        yield step("POST", f"{plan}/publish", 403)
        return
    yield step("POST", "/planning/plans", 201, json=new)
    yield step("POST", "/planning/plans", 422, json={"week": WEEK, "shifts": []})
    yield step("POST", f"{plan}/publish", 200)


async def _partner(driver: Driver, customer: Customer) -> None:
    caller = Caller("api_key", customer.id)
    for _ in range(2):
        await driver.send(
            caller, step("GET", "/partner/v1/hours", 200), {"X-Api-Key": api_key(customer)}
        )


async def _strangers(driver: Driver) -> None:
    wrong = {"email": CUSTOMERS[0].people[0].email, "password": "guess"}
    for todo in (
        step("POST", "/auth/login", 401, json=wrong),
        step("GET", "/auth/me", 401),
        step("GET", "/partner/v1/hours", 401),
        step("GET", "/nowhere", 404),
        step("GET", "/health", 200),
    ):
        await driver.send(NOBODY, todo)
