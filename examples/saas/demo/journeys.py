"""What people and software do in the product's other areas; `traffic` says who and when."""

import asyncio
import json
import time
from collections.abc import Mapping

import httpx

from .driver import Caller, Driver, step

Headers = Mapping[str, str]

BEST_MODEL = "sage-large"
SHORT = "When are shifts published?"
# More words than the best model thinks through in time, and more than fit into its memory.
LONG = " ".join(["Who pays the overtime of last week, and when?"] * 5)
TOO_LONG = " ".join(["Who pays the overtime of last week, and when?"] * 10)
BIRTH = {"born": "1988-03-09T05:40:00+01:00", "latitude": 47.37, "longitude": 8.54}
MONTH = "2026-11"
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 15.0


async def of_everybody(driver: Driver, caller: Caller, auth: Headers, role: str) -> None:
    """Chat, charts, material and, last, one's own data."""
    await _chat(driver, caller, auth)
    for _ in range(2):
        await driver.send(caller, step("POST", "/charts/natal", 200, json=BIRTH), auth)
    await driver.send(caller, step("POST", "/charts/natal", 422, json={"born": "then"}), auth)
    await _material(driver, caller, auth, role)
    if role != "admin":
        await driver.send(caller, step("POST", "/payroll/runs", 403, json={"month": MONTH}), auth)
    for kind in ("export", "delete"):
        await _privacy(driver, caller, auth, kind)


async def of_admins(driver: Driver, caller: Caller, auth: Headers, plan: str) -> None:
    """Payroll twice, of which the second finds everybody paid; and keys for the company's software."""
    for _ in range(2):
        await driver.send(caller, step("POST", "/payroll/runs", 200, json={"month": MONTH}), auth)
    created = await driver.send(caller, step("POST", "/b2b/keys", 201), auth)
    await _software(driver, Caller("api_key", caller.org_id), created.json()["key"], plan)


async def _chat(driver: Driver, caller: Caller, auth: Headers) -> None:
    # Refused before anybody's long question can send the model to rest, so both are surely seen.
    for text in (SHORT, TOO_LONG, LONG):
        await ask(driver, caller, auth, text)
    await _until_best_model_is_back(driver, caller, auth)
    await driver.send(caller, step("GET", "/chat/messages", 200), auth)


async def ask(driver: Driver, caller: Caller, auth: Headers, text: str) -> str:
    """Ask the assistant; gives the model that answered."""
    answer = await driver.send(
        caller, step("POST", "/chat/messages", 200, json={"text": text}), auth
    )
    *_, (kind, data) = events(answer)
    return data if kind == "done" else kind


def events(answer: httpx.Response) -> list[tuple[str, str]]:
    """The server-sent events of an answer."""
    blocks = [block.splitlines() for block in answer.text.split("\n\n") if block]
    return [
        (kind.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for kind, data in blocks
    ]


async def _until_best_model_is_back(driver: Driver, caller: Caller, auth: Headers) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await ask(driver, caller, auth, SHORT) != BEST_MODEL and time.monotonic() < deadline:
        await asyncio.sleep(PATIENCE_SECONDS / 50)


async def _material(driver: Driver, caller: Caller, auth: Headers, role: str) -> None:
    items = (await driver.send(caller, step("GET", "/material/items", 200), auth)).json()
    apron = next(item for item in items if item["sku"] == "apron")
    path = f"/material/items/{apron['id']}/reservations"
    wanted = {"quantity": 1, "version": apron["version"]}
    # A colleague may have been faster; the second time the version is surely an old one.
    await driver.send(caller, step("POST", path, 201, 409, json=wanted), auth)
    await driver.send(caller, step("POST", path, 409, json=wanted), auth)
    new = {"sku": f"vest-{caller.user_id}", "stock": 5}
    for status in (201, 409) if role != "member" else (403,):
        await driver.send(caller, step("POST", "/material/items", status, json=new), auth)


async def _privacy(driver: Driver, caller: Caller, auth: Headers, kind: str) -> None:
    opened = await driver.send(
        caller, step("POST", "/privacy/requests", 202, json={"kind": kind}), auth
    )
    path = f"/privacy/requests/{opened.json()['id']}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        seen = await driver.send(caller, step("GET", path, 200), auth)
        if seen.json()["status"] == "done":
            break
        await asyncio.sleep(POLL_SECONDS)
    await driver.send(caller, step("GET", f"{path}/result", 200), auth)


async def _software(driver: Driver, caller: Caller, key: str, plan: str) -> None:
    for status in (200, 200, 429 if plan == "free" else 200):
        await driver.send(caller, step("GET", "/b2b/weeks", status), _key(key))
    rotated = await driver.send(caller, step("POST", "/b2b/keys/rotate", 201), _key(key))
    await driver.send(caller, step("GET", "/b2b/usage", 401, signed_in=False), _key(key))
    await driver.send(caller, step("GET", "/b2b/usage", 200), _key(rotated.json()["key"]))


def _key(key: str) -> Headers:
    return {"X-Api-Key": key}
