"""The job `calendar.synchronize`: read the calendars of all organisations, each with its last mark."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

from sqlalchemy import select, update

from . import calendars, feeds
from .calendars import PROCESSING
from .database import SessionLocal
from .jobs import job
from .models import Subscription
from .optional_identity import acting_for
from .optional_operations import job_backlog, job_items
from .settings import settings

READERS: Mapping[str, Callable[[Subscription], calendars.Changes | None]] = {
    calendars.KIND: calendars.read,
    "ics": feeds.read,
}
logger = logging.getLogger(__name__)


class CalendarsUnreachable(Exception):
    """Not a single calendar could be read."""


@job("calendar.synchronize", "every 15m", max_runtime=600, critical=True, processing=PROCESSING)
def run() -> None:
    """Read all; one that fails does not keep the others waiting, and is asked again next time."""
    subscriptions = _subscriptions()
    outcomes = [_synchronise(subscription) for subscription in subscriptions]
    failed = sum(outcome is None for outcome in outcomes)
    changed = sum(bool(outcome) for outcome in outcomes)
    unchanged = len(outcomes) - failed - changed
    job_items(read=len(outcomes), written=changed, rejected=failed, filtered=unchanged)
    job_backlog(before=len(outcomes), after=failed)
    if failed and failed == len(outcomes):
        raise CalendarsUnreachable(f"{failed} calendars")
    logger.info("calendars read", extra={"changed": changed, "failed": failed})


def _subscriptions() -> Sequence[Subscription]:
    """All that can be asked: without a CalDAV server only the feeds."""
    kinds = [kind for kind in READERS if kind != calendars.KIND or settings.calendar_url]
    chosen = select(Subscription).where(Subscription.kind.in_(kinds)).order_by(Subscription.id)
    with SessionLocal() as session:
        return session.scalars(chosen).all()


def _synchronise(subscription: Subscription) -> bool | None:
    """Whether a calendar had changed; None when it could not be read."""
    with acting_for(subscription.org_id, **PROCESSING.references()):
        try:
            changes = READERS[subscription.kind](subscription)
            _keep(subscription.id, changes)
        except Exception as error:
            # Of the error only its kind: its text may hold addresses with logins.
            facts = {"error_code": "calendar_unreadable", "kind": subscription.kind}
            logger.error("calendar not read: %s", type(error).__name__, extra=facts)
            return None
    return changes is not None and bool(changes.upserts or changes.deleted)


def _keep(subscription_id: int, changes: calendars.Changes | None) -> None:
    with SessionLocal.begin() as session:
        if changes is not None:
            calendars.apply(session, subscription_id, changes)
            return
        now = datetime.now(timezone.utc)
        theirs = Subscription.id == subscription_id
        session.execute(update(Subscription).where(theirs).values(synced_at=now))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run()
