"""Jobs of RQ and who asks for them; nothing here knows of telemetry.

Run as a program it puts jobs in: ``python -m apps.rq_jobs sync 3`` puts in three.
"""

import logging
import os
import sys
import time
from datetime import timedelta
from typing import Annotated

import redis
from fastapi import Depends, FastAPI, Header
from rq import Queue, Retry

from . import people

queue = Queue("reports", connection=redis.Redis.from_url(os.environ["TASKS_BROKER"]))
log = logging.getLogger("jobs")


def sync(calendar: str = "north") -> str:
    log.warning("synchronising %s", calendar)
    return calendar


def fail() -> None:
    raise ValueError("anna@example.com has no report")


def lost() -> None:
    os._exit(3)


def slow() -> None:
    time.sleep(60)


def ask(name: str) -> str:
    """Put a job in as its caller would."""
    function = f"apps.rq_jobs.{name}"
    if name == "later":
        return str(queue.enqueue_in(timedelta(seconds=1), "apps.rq_jobs.sync", retry=None).id)
    if name == "slow":
        return str(queue.enqueue(function, job_timeout=1).id)
    if name == "flaky":
        return str(queue.enqueue("apps.rq_jobs.fail", retry=Retry(max=2)).id)
    return str(queue.enqueue(function).id)


api = FastAPI()


def current_user(authorization: Annotated[str, Header()]) -> people.Person:
    token = authorization.removeprefix("Bearer ")
    return next(person for person in people.PEOPLE if person.token == token)


@api.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}


@api.get("/ask/{name}")
def asked(name: str, user: Annotated[people.Person, Depends(current_user)]) -> dict[str, str]:
    return {"id": ask(name)}


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        ask(sys.argv[1])
