"""A planner that reads calendars of two customers: CalDAV, sync and async, and a feed. Knows no telemetry but whose work it does."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import caldav
import httpx
import icalendar
from caldav.async_davclient import AsyncDAVClient

import otel_shim

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
SERVER = os.environ["PLANNER_SERVER"]
LOGIN = {"username": os.environ["PLANNER_LOGIN"], "password": os.environ["PLANNER_PASSWORD"]}
EVENT = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//planner//EN
BEGIN:VEVENT
UID:{uid}
DTSTAMP:20260101T000000Z
DTSTART:20260105T090000Z
SUMMARY:Oncology
ATTENDEE:mailto:bob@example.com
END:VEVENT
END:VCALENDAR
"""


def fill(name: str) -> Any:
    client = caldav.DAVClient(url=SERVER, **LOGIN)
    calendar = client.get_principal().make_calendar(name=name, cal_id=name)
    for number in range(3):
        calendar.add_event(EVENT.format(uid=f"{name}-{number}"))
    return calendar


def north(calendar: Any) -> None:
    copy = calendar.get_objects(load_objects=True)
    calendar.add_event(EVENT.format(uid="north-new"))
    copy.sync()
    copy.sync_token = "http://radicale.org/ns/sync/" + "0" * 64
    copy.sync()


async def south(address: str) -> None:
    async with AsyncDAVClient(url=SERVER, **LOGIN) as client:
        await client.calendar(url=address).get_objects(load_objects=True)
    async with httpx.AsyncClient(auth=httpx.BasicAuth(*LOGIN.values())) as client:
        response = await client.get(address + "south-1.ics")
    icalendar.Calendar.from_ical(response.text)


def main() -> None:
    calendars = {name: fill(name) for name in ("north", "south")}
    about = {"processing_activity_id": "ropa-017", "legal_basis": "contract"}
    with otel_shim.identity(org_id="north", actor_type="job", user_id="planner", **about):
        north(calendars["north"])
    with otel_shim.identity(org_id="south", actor_type="job", user_id="planner"):
        asyncio.run(south(str(calendars["south"].url)))


main()
