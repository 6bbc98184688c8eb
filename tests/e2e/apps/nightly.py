"""A job without any server: walks over organisations, one after the other, with tasks and with threads.

The one application here that uses the shim's optional API, to say for whom each piece is done.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import otel_shim

from . import store
from .people import PEOPLE

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
log = logging.getLogger("nightly")
ORGANISATIONS = [f"tenant-{number:02d}" for number in range(50)]
AGENT = PEOPLE[0].id


@otel_shim.operation("planning.publish_one")
def publish(org_id: str) -> None:
    store.first_ticket(AGENT)
    log.info("published", extra={"for": org_id})


@otel_shim.operation("planning.count_one")
async def count(org_id: str) -> None:
    await store.first_ticket_async(AGENT)
    await asyncio.sleep(0)
    await store.first_ticket_async(AGENT)
    log.info("counted", extra={"for": org_id})


async def count_for(org_id: str) -> None:
    with otel_shim.identity(org_id=org_id, actor_type="job", user_id="nightly"):
        await count(org_id)


def publish_for(org_id: str) -> None:
    with otel_shim.identity(org_id=org_id, actor_type="job", user_id="nightly"):
        publish(org_id)


async def gathered() -> None:
    await asyncio.gather(*(count_for(org_id) for org_id in ORGANISATIONS))
    await store.async_engine.dispose()


@otel_shim.operation("planning.one_by_one")
def one_by_one() -> None:
    for org_id in ORGANISATIONS[:3]:
        publish_for(org_id)
    log.info("between", extra={"for": None})


@otel_shim.operation("planning.with_tasks")
def with_tasks() -> None:
    asyncio.run(gathered())
    log.info("between", extra={"for": None})


@otel_shim.operation("planning.with_threads")
def with_threads(pool: ThreadPoolExecutor) -> None:
    list(pool.map(publish_for, ORGANISATIONS))


def main() -> None:
    one_by_one()
    with_tasks()
    with ThreadPoolExecutor(8) as pool:
        with_threads(pool)
        # The threads are used again, outside of any job: nobody's work.
        list(pool.map(lambda _: log.info("idle", extra={"for": None}), range(16)))
    log.info("done", extra={"for": None})


if __name__ == "__main__":
    main()
