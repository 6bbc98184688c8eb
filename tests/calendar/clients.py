"""caldav's two clients behind one asynchronous face, and the items that tests put into calendars."""

from __future__ import annotations

import inspect
import uuid
from dataclasses import dataclass
from typing import Any

import caldav
from caldav.async_davclient import AsyncDAVClient
from caldav.lib import error

from .servers import CalendarServer

KINDS = ("sync", "async")
_ITEM = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//tests//EN
BEGIN:VEVENT
UID:{uid}
DTSTAMP:20260101T000000Z
DTSTART:{start}
SUMMARY:{summary}
ATTENDEE:mailto:bob@example.com
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


CARRY_STATUS = hasattr(error.AuthorizationError(), "status")
"""Whether caldav's errors carry the status of the answer, as they do from 3.6."""


def refused(status: int, kind: str) -> int | str:
    """What a request says that caldav answers with an error of this class."""
    return status if CARRY_STATUS else kind


def item(uid: str, summary: str = "Dentist", start: str = "20260105T090000Z") -> str:
    """One event as iCalendar text."""
    return _ITEM.format(uid=uid, summary=summary, start=start)


async def settled(value: Any) -> Any:
    """What a call gives, whether it must be awaited or not."""
    return await value if inspect.isawaitable(value) else value


@dataclass(frozen=True)
class Account:
    """A client of an account, with a calendar of the test's own."""

    client: Any
    calendar: Any

    async def put(self, *uids: str, summary: str = "Dentist") -> None:
        """Save events."""
        for uid in uids:
            await settled(self.calendar.add_event(item(uid, summary)))

    async def event(self, uid: str) -> Any:
        """The event of this uid."""
        return await settled(self.calendar.get_event_by_uid(uid))

    async def close(self) -> None:
        """Close the connections."""
        await settled(self.client.close())


def client(kind: str, url: str, login: str | None, password: str | None, **more: Any) -> Any:
    """A client of one kind."""
    made = caldav.DAVClient if kind == "sync" else AsyncDAVClient
    return made(url=url, username=login, password=password, **more)


async def account(kind: str, server: CalendarServer) -> Account:
    """A client with a new calendar."""
    opened = client(kind, server.home, server.login, server.password)
    principal = await settled(opened.get_principal())
    name = uuid.uuid4().hex[:12]
    calendar = await settled(principal.make_calendar(name=name, cal_id=name))
    return Account(opened, calendar)


async def reopened(kind: str, found: Account, server: CalendarServer) -> Account:
    """A second client of the same calendar, as another device of the same person."""
    opened = client(kind, server.home, server.login, server.password)
    return Account(opened, opened.calendar(url=str(found.calendar.url)))
