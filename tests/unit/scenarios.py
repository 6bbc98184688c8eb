"""One root that walks over many tenants, in every way a program may: who gets whose identity?

Each scenario runs against a ``Holder``, so that the same code shows that the shim does not leak and that
a plain ContextVar does.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber

from tests.unit.telemetry import Telemetry

OWNER = "test.owner"
NOBODY = "nobody"
TENANTS = [f"org-{n}" for n in range(50)]


class Holder(Protocol):
    """What holds identity: the shim, or what it is compared with."""

    def identity(self, org_id: str) -> AbstractContextManager[Any]:
        """A block that belongs to somebody."""

    def bind(self, org_id: str) -> None:
        """What holds from here on."""


class Work:
    """Spans and logs that say whose they are meant to be."""

    def __init__(self, telemetry: Telemetry, holder: Holder) -> None:
        self.holder = holder
        self._telemetry = telemetry
        self._tracer = telemetry.tracer()
        self._logger = telemetry.logger()

    def span(self, name: str, owner: str) -> AbstractContextManager[trace.Span]:
        """A span meant for an owner."""
        return self._tracer.start_as_current_span(name, attributes={OWNER: owner})

    def log(self, owner: str) -> None:
        """A log record meant for an owner."""
        self._logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                body="work",
                attributes={OWNER: owner},
            )
        )

    def leaks(self) -> list[str]:
        """Whatever carries another's identity, or an owner's without it."""
        seen = [(s.name, dict(s.attributes or {})) for s in self._telemetry.spans()]
        seen += [("log", dict(r.attributes)) for r in self._telemetry.records()]
        return [f"{name}: {a}" for name, a in seen if OWNER in a and not _right(a)]

    def count(self, owner: str) -> int:
        """How much was seen that is meant for an owner."""
        seen: list[Any] = [s.attributes for s in self._telemetry.spans()]
        seen += [r.attributes for r in self._telemetry.records()]
        return sum(1 for a in seen if a and a.get(OWNER) == owner)


def _right(attributes: dict[str, Any]) -> bool:
    owner = attributes[OWNER]
    return bool(attributes.get("saas.org.id") == (None if owner == NOBODY else owner))


async def _pause(chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)


async def _visit(work: Work, tenant: str, chance: random.Random) -> None:
    """One tenant's work: nested spans, awaits, tasks and threads of its own, logs everywhere."""
    await _pause(chance)
    with work.span("outer", tenant):
        work.log(tenant)
        await _pause(chance)
        with work.span("inner", tenant):
            await _pause(chance)
            work.log(tenant)
            await asyncio.create_task(_leaf(work, tenant, chance))
        await asyncio.to_thread(_leaf_in_thread, work, tenant)
    await _pause(chance)
    work.log(tenant)


async def _leaf(work: Work, tenant: str, chance: random.Random) -> None:
    with work.span("task", tenant):
        await _pause(chance)
        work.log(tenant)


def _leaf_in_thread(work: Work, tenant: str) -> None:
    with work.span("thread", tenant):
        work.log(tenant)


def blocks_in_tasks(work: Work) -> None:
    """A job gathers tasks; each does its tenant's work in an identity block, and then nobody's."""

    async def one(tenant: str) -> None:
        chance = random.Random(tenant)
        await _pause(chance)
        with work.holder.identity(tenant):
            await _visit(work, tenant, chance)
        with work.span("after", NOBODY):
            work.log(NOBODY)

    async def job() -> None:
        with work.span("job", NOBODY):
            await asyncio.gather(*map(one, TENANTS))
            work.log(NOBODY)

    asyncio.run(job())


def binds_in_tasks(work: Work) -> None:
    """A job gathers tasks; each binds its tenant, and works for it from there on."""

    async def one(tenant: str) -> None:
        chance = random.Random(tenant)
        await _pause(chance)
        work.holder.bind(tenant)
        await _visit(work, tenant, chance)

    async def job() -> None:
        with work.span("job", NOBODY):
            await asyncio.gather(*map(one, TENANTS))
            work.log(NOBODY)
            with work.span("after", NOBODY):
                work.log(NOBODY)

    asyncio.run(job())


def _threads(work: Work, one: Callable[[str], None]) -> None:
    """A job hands each tenant to a pool of few threads, with a copy of its context."""
    with ThreadPoolExecutor(4) as pool, work.span("job", NOBODY):
        futures = [pool.submit(contextvars.copy_context().run, one, t) for t in TENANTS]
        for future in futures:
            future.result()
        work.log(NOBODY)


def blocks_in_threads(work: Work) -> None:
    """Each thread does a tenant's work in an identity block, and then nobody's."""

    def one(tenant: str) -> None:
        with work.holder.identity(tenant), work.span("outer", tenant):
            work.log(tenant)
            time.sleep(0)
            with work.span("inner", tenant):
                work.log(tenant)
        work.log(NOBODY)

    _threads(work, one)


def binds_in_threads(work: Work) -> None:
    """Each thread binds its tenant."""

    def one(tenant: str) -> None:
        work.holder.bind(tenant)
        with work.span("outer", tenant):
            time.sleep(0)
            work.log(tenant)
        work.log(tenant)

    _threads(work, one)


def logs_between_jobs(work: Work) -> None:
    """One thread does a job for each tenant; what it logs in between belongs to nobody."""

    def job(tenant: str) -> None:
        with work.span("job", tenant):
            work.holder.bind(tenant)
            with work.span("step", tenant):
                work.log(tenant)
            work.log(tenant)

    with ThreadPoolExecutor(1) as pool:
        for tenant in TENANTS:
            pool.submit(job, tenant).result()
            pool.submit(work.log, NOBODY).result()


ALL = (
    blocks_in_tasks,
    binds_in_tasks,
    blocks_in_threads,
    binds_in_threads,
    logs_between_jobs,
)
