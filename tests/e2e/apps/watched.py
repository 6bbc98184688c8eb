"""A job with a schedule, under Celery and RQ, which runs until a file is there; and one that reads a feed.

Run as a program it asks for one: ``python -m apps.watched celery.run 1`` of Celery, ``rq.run`` of RQ.
"""

# mypy: disable-error-code="untyped-decorator,import-untyped,misc"

import os
import sys
import time
from pathlib import Path

import redis
from celery import Celery
from rq import Queue

import otel_shim

BROKER = os.environ["TASKS_BROKER"]
celery = Celery("watched", broker=BROKER)
celery.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@celery.task(name="celery.night")
@otel_shim.job("night.run", schedule="every 1h", max_runtime=1, critical=True)
def run() -> None:
    until = Path(os.environ["WATCHED_UNTIL"])
    while not until.exists():
        time.sleep(0.05)


def read() -> int:
    import httpx
    import icalendar

    with otel_shim.identity(org_id="north"):
        text = httpx.get(os.environ["WATCHED_FEED"]).text
        return len(icalendar.Calendar.from_ical(text).subcomponents)


if __name__ == "__main__":
    if sys.argv[1] == "celery.run":
        run.delay()
    else:
        queue = Queue("reports", connection=redis.Redis.from_url(BROKER))
        queue.enqueue(f"apps.watched.{sys.argv[1].partition('.')[2]}")
