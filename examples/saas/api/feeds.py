"""Absences of an organisation's staff, from a feed of iCalendar text that the partner serves."""

import httpx
import icalendar

from .calendars import Changes
from .models import Subscription
from .settings import settings

TIMEOUT = httpx.Timeout(10.0)


def read(subscription: Subscription) -> Changes | None:
    """The whole feed, or None when it is what it was; `ValueError` when it is no calendar."""
    known = {"If-None-Match": subscription.mark} if subscription.mark else {}
    with httpx.Client(base_url=settings.connector_url, timeout=TIMEOUT) as client:
        answer = client.get(f"/calendar/feeds/{subscription.org_id}/absences.ics", headers=known)
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        return None
    answer.raise_for_status()
    entries = _entries(icalendar.Calendar.from_ical(answer.content))
    return Changes(entries, frozenset(), answer.headers.get("ETag"), whole=True)


def _entries(feed: icalendar.Component) -> dict[str, str]:
    """When each entry starts, by its id; what has no start is left out."""
    return {
        str(event["uid"]): event["dtstart"].dt.isoformat()
        for event in feed.walk("VEVENT")
        if "uid" in event and "dtstart" in event
    }
