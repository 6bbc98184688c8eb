"""Tasks of Celery and who asks for them; nothing here knows of telemetry but one task.

Run as a program it sends tasks: ``python -m apps.tasks add 3`` sends three.
"""

# mypy: disable-error-code="untyped-decorator,import-untyped,misc"

import logging
import os
import sys
import time
from typing import Annotated

from celery import Celery
from celery.exceptions import Ignore
from fastapi import Depends, FastAPI, Header

from . import people

BROKER = os.environ["TASKS_BROKER"]

celery = Celery("tasks", broker=BROKER, backend=BROKER if "TASKS_RESULTS" in os.environ else None)
celery.conf.update(
    task_routes={"reports.*": {"queue": "reports"}},
    beat_schedule={"tick": {"task": "calendar.tick", "schedule": 1.0}},
    beat_schedule_filename="beat",
    broker_connection_retry_on_startup=True,
    task_soft_time_limit=None,
    worker_hijack_root_logger=False,
)
log = logging.getLogger("tasks")


@celery.task(name="calendar.sync")
def sync(calendar: str) -> None:
    log.warning("synchronising %s", calendar)


@celery.task(name="calendar.tick")
def tick() -> None:
    log.warning("tick")


@celery.task(name="reports.fail")
def fail() -> None:
    raise ValueError("anna@example.com has no report")


@celery.task(name="reports.flaky", bind=True, max_retries=3)
def flaky(self: object) -> None:
    if self.request.retries < 2:  # type: ignore[attr-defined]
        raise self.retry(countdown=0, exc=ConnectionError("bob@example.com"))  # type: ignore[attr-defined]
    log.warning("done at last")


@celery.task(name="reports.slow")
def slow(seconds: float) -> None:
    time.sleep(seconds)


@celery.task(name="reports.killed", time_limit=1)
def killed() -> None:
    time.sleep(60)


@celery.task(name="reports.lost")
def lost() -> None:
    os._exit(3)


@celery.task(name="reports.ignored")
def ignored() -> None:
    raise Ignore


@celery.task(name="mail.bind")
def bind() -> None:
    """Says whose work it is, and forgets to end that."""
    import otel_shim

    otel_shim.bind(org_id="acme", user_id="anna")
    otel_shim.identity(org_id="acme", user_id="anna").__enter__()


@celery.task(name="mail.send")
def mail() -> None:
    """Sends others, one of them by its name only."""
    sync.delay("of a task")
    celery.send_task("calendar.sync", ("by name",))


api = FastAPI()


def current_user(authorization: Annotated[str, Header()]) -> people.Person:
    token = authorization.removeprefix("Bearer ")
    return next(person for person in people.PEOPLE if person.token == token)


@api.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}


@api.get("/ask/{name}")
def ask(name: str, user: Annotated[people.Person, Depends(current_user)]) -> dict[str, str]:
    sent = celery.send_task(name, ("north",) if name == "calendar.sync" else ())
    return {"id": sent.id}


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        celery.send_task(sys.argv[1], ("north",) if sys.argv[1] == "calendar.sync" else ())
