"""The scheduler: `python -m api.scheduler` runs every job when it is due, and drains the calendar queue.

`SAAS_WORKERS` is how many threads drain (1; 0 leaves it to `python -m api.worker`), and
`SAAS_SCHEDULER_PORT` where `/health` answers (none: nowhere).
"""

import json
import logging
import os
import signal
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

# Imported for what they add to JOBS.
from . import (  # noqa: F401
    backup,
    material_import,
    payroll_export,
    privacy_rollup,
    retention,
    rollup,
    synchronisation,
)
from .jobs import JOBS
from .schedules import period_of
from .settings import settings
from .worker import Workers

# A run that is due while an earlier one is still at work is left out, and of several missed ones one is made up for.
DEFAULTS = {"coalesce": True, "max_instances": 1, "misfire_grace_time": 60}
APART = timedelta(milliseconds=300)
logger = logging.getLogger(__name__)


def trigger_of(schedule: str, place: int) -> BaseTrigger:
    """What APScheduler makes of a schedule; `ValueError` when it is none.

    What runs every so often begins now, but not all jobs at the same moment: `place` says who is when.
    """
    period = period_of(schedule)
    if period is None:
        return CronTrigger.from_crontab(schedule, timezone="UTC")
    first = datetime.now(timezone.utc) + APART * (place + 1)
    return IntervalTrigger(seconds=int(period.total_seconds()), start_date=first, timezone="UTC")


def make_scheduler() -> BackgroundScheduler:
    """All jobs with their times; the backups only where they can be made."""
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults=DEFAULTS)
    for place, job in enumerate(JOBS.values()):
        if settings.database == "sqlite" or not job.name.startswith("backup."):
            trigger = trigger_of(job.schedule, place)
            scheduler.add_job(job.run, trigger, id=job.name, name=job.name)
    return scheduler


def serve(port: int, scheduler: BackgroundScheduler) -> None:
    """Answer `/health` with when each job is due next."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            due = {job.id: str(job.next_run_time) for job in scheduler.get_jobs()}
            body = json.dumps({"status": "ok", "due": due}).encode()
            self.send_response(200 if self.path == "/health" else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Who looks after the scheduler's health asks every few seconds."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    """Run until a signal asks to end; what is at work is finished first."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    scheduler = make_scheduler()
    workers = Workers(int(os.environ.get("SAAS_WORKERS", "1")), stop)
    scheduler.start()
    workers.start()
    if port := os.environ.get("SAAS_SCHEDULER_PORT"):
        serve(int(port), scheduler)
    logger.info("scheduler up", extra={"jobs": len(JOBS)})
    stop.wait()
    scheduler.shutdown()
    workers.join(seconds=10)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
