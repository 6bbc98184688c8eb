"""Feeds of iCalendar text: who is absent when, for each organisation; a new absence every while."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from datetime import date, timedelta
from email.utils import formatdate

from fastapi import APIRouter, HTTPException, Request, Response

from . import faults

router = APIRouter(prefix="/calendar/feeds", tags=["feeds"])

STARTED = time.time()
NEW_EVERY_SECONDS = 20.0
REFRESH_SECONDS = 60
SHOWN = 25
FIRST_DAY = date(2026, 11, 2)
LOGIN_PAGE = "<!doctype html><html><body><form action='/login'>Please sign in</form></body></html>"


@router.get("/{org_id}/absences.ics")
async def absences(org_id: str, request: Request) -> Response:
    """The feed, or 304 for who knows it already."""
    await asyncio.sleep(faults.seconds("feed slow"))
    if faults.on("feed down"):
        raise HTTPException(503, "try again later")
    if faults.on("feed html"):
        return Response(LOGIN_PAGE, media_type="text/html")
    newest = 0 if faults.on("feed unchanged") else int((time.time() - STARTED) / NEW_EVERY_SECONDS)
    text = "\r\n".join(_feed(org_id, newest)) + "\r\n"
    if faults.on("feed malformed"):
        return Response(text[: len(text) // 2], media_type="text/calendar")
    return _conditional(request, text, STARTED + newest * NEW_EVERY_SECONDS)


def _conditional(request: Request, text: str, changed_at: float) -> Response:
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
    headers = {"ETag": etag, "Last-Modified": formatdate(changed_at, usegmt=True)}
    if request.headers.get("If-None-Match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(text, media_type="text/calendar", headers=headers)


def _feed(org_id: str, newest: int) -> Iterator[str]:
    yield from ("BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Partner//EN")
    yield f"REFRESH-INTERVAL;VALUE=DURATION:PT{REFRESH_SECONDS}S"
    for number in range(max(0, newest - SHOWN), newest + 1):
        day = FIRST_DAY + timedelta(days=number)
        yield from ("BEGIN:VEVENT", f"UID:absence-{org_id}-{number}@partner.example")
        yield from (f"DTSTAMP:{FIRST_DAY:%Y%m%d}T000000Z", f"DTSTART;VALUE=DATE:{day:%Y%m%d}")
        yield from ("SUMMARY:Absent", "END:VEVENT")
    yield "END:VCALENDAR"
