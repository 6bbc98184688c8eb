"""The staff's calendars on a CalDAV server: published plans are written, what others changed is read.

One calendar for each organisation. What was read is kept with the server's sync token, so that next time
only changes are asked for.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta, timezone

import caldav
import icalendar
from caldav.lib.error import DAVError, NotFoundError
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from .database import SessionLocal
from .jobs import Processing
from .models import Entry, Shift, Subscription, User
from .settings import settings

PROCESSING = Processing("ropa-040", "contract", "r1y")
KIND = "caldav"
# caldav gives tokens of this kind when it could not use the server's; no server knows them, and with one
# of them every later synchronisation would read everything and never see that something is gone.
EMULATED = "fake-"
# Made now, or there already, as servers say it.
MADE = (201, 405, 409)
STARTS = time(8, tzinfo=timezone.utc)
TIMEOUT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Changes:
    """What one synchronisation brought: when each entry starts by its address, and those that are gone.

    `mark` is what to ask with next time. When it is `whole`, what is not in it is gone too.
    """

    upserts: Mapping[str, str]
    deleted: frozenset[str]
    mark: str | None
    whole: bool


@contextmanager
def connected() -> Iterator[caldav.DAVClient]:
    """A client of the configured server."""
    with caldav.DAVClient(
        url=settings.calendar_url,
        username=settings.calendar_user,
        password=settings.calendar_password,
        # Said at once; otherwise each connection begins with a request that is refused.
        auth_type="basic",
        timeout=TIMEOUT_SECONDS,
    ) as client:
        yield client


def read(subscription: Subscription) -> Changes:
    """Ask for what changed in an organisation's calendar since its mark, or for all of it."""
    with connected() as client:
        calendar = _calendar(client, subscription)
        try:
            found = calendar.get_objects_by_sync_token(subscription.mark, load_objects=True)
        except NotFoundError:
            _remember(subscription.id, ready=False, mark=None)
            raise
        changes = _changes(found)
    return changes if subscription.mark else replace(changes, whole=True)


def write(org_id: str, plan_id: int) -> int:
    """Write a plan's shifts into the calendar, an entry for each person; gives their number."""
    shifts = _shifts(plan_id)
    theirs = (Subscription.org_id == org_id, Subscription.kind == KIND)
    with SessionLocal() as session:
        subscription = session.scalars(select(Subscription).where(*theirs)).one()
    with connected() as client:
        calendar = _calendar(client, subscription)
        for email, own in shifts.items():
            calendar.add_event(_entry(email, own).to_ical().decode())
    return len(shifts)


def _shifts(plan_id: int) -> dict[str, list[Shift]]:
    """The shifts of a plan by the email address of who works them."""
    statement = select(User.email, Shift).join(Shift).where(Shift.plan_id == plan_id)
    shifts: dict[str, list[Shift]] = defaultdict(list)
    with SessionLocal() as session:
        for email, shift in session.execute(statement.order_by(User.email, Shift.day)):
            shifts[email].append(shift)
    return dict(shifts)


def _calendar(client: caldav.DAVClient, subscription: Subscription) -> caldav.Calendar:
    """The organisation's calendar, made when it is needed for the first time."""
    url = client.url.join(f"{subscription.org_id}/")
    if not subscription.ready:
        answer = client.mkcalendar(str(url))
        if answer.status not in MADE:
            raise DAVError(str(url), f"the calendar could not be made: {answer.status}")
        _remember(subscription.id, ready=True)
    return caldav.Calendar(client, url=url)


def _remember(subscription_id: int, **values: object) -> None:
    changed = update(Subscription).where(Subscription.id == subscription_id).values(values)
    with SessionLocal.begin() as session:
        session.execute(changed)


def _entry(email: str, shifts: Sequence[Shift]) -> icalendar.Calendar:
    """One entry, repeated on each day that the person works."""
    event = icalendar.Event()
    first = shifts[0]
    event.add("uid", f"plan-{first.plan_id}-{first.assignee_id}@roster.example")
    event.add("summary", "Shift")
    event.add("dtstamp", datetime.now(timezone.utc))
    days = [datetime.combine(shift.day, STARTS) for shift in shifts]
    event.add("dtstart", days[0])
    event.add("duration", timedelta(hours=first.hours))
    if days[1:]:
        event.add("rdate", days[1:])
    event.add("attendee", f"mailto:{email}")
    wrapper = icalendar.Calendar()
    wrapper.add("prodid", "-//Roster//EN")
    wrapper.add("version", "2.0")
    wrapper.add_component(event)
    return wrapper


def _changes(found: caldav.SynchronizableCalendarObjectCollection) -> Changes:
    """What is to be applied; a calendar that was read completely has nothing beyond it."""
    emulated = str(found.sync_token).startswith(EMULATED)
    gone = {str(url) for url in found.deleted_urls}
    loaded = {str(each.url.canonical()): each for each in found}
    upserts = {
        href: each.icalendar_component["dtstart"].dt.isoformat()
        for href, each in loaded.items()
        if href not in gone and each.data
    }
    return Changes(upserts, frozenset(gone), None if emulated else found.sync_token, emulated)


def apply(session: Session, subscription_id: int, changes: Changes) -> None:
    """Make the product's copy of a calendar what it is now, and remember how far that is."""
    entries = select(Entry).where(Entry.subscription_id == subscription_id)
    known = {entry.href: entry for entry in session.scalars(entries)}
    gone = (
        known.keys() - changes.upserts.keys() if changes.whole else known.keys() & changes.deleted
    )
    for href in gone:
        session.delete(known[href])
    for href, starts in changes.upserts.items():
        if href in known:
            known[href].starts = starts
        else:
            session.add(Entry(subscription_id=subscription_id, href=href, starts=starts))
    subscription = session.get_one(Subscription, subscription_id)
    subscription.mark = changes.mark
    subscription.synced_at = datetime.now(timezone.utc)
