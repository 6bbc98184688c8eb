"""Which trace shows what an alert is about: exemplars first, then a trace search, within a budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx

from otel_shim.relay import exemplars, search
from otel_shim.relay.measures import Measures
from otel_shim.relay.model import Finding, LookupFailed, Question, Settings, Sighting

_AT_ONCE = 16
_Ask = Callable[[Question, float], Awaitable[tuple[Sighting, ...]]]


@dataclass(slots=True)
class _Backend:
    """A place to ask; after a failure it is left alone until `rests_until` (monotonic seconds)."""

    name: str
    ask: _Ask
    rests_until: float = 0.0


class Lookup:
    """Asks the backends of the settings.

    One question may ask two backends in turn. `SHARE` of the budget for each leaves time to note that
    both are silent, so that the next batch does not wait for them.
    """

    SHARE = 0.45

    def __init__(self, settings: Settings, client: httpx.AsyncClient, measures: Measures) -> None:
        self._settings = settings
        self._measures = measures
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._exemplars = _exemplar_backend(settings, client)
        self._search = _search_backend(settings, client)
        for backend in (self._exemplars, self._search):
            if backend is not None:
                measures.add("lookup_failures", 0, backend=backend.name)

    async def find(self, questions: Sequence[Question]) -> list[Finding]:
        """An answer for each, after at most the budget; never raises.

        Questions that are the same are asked once.
        """
        unique = {_key(item): item for item in questions}
        tasks = {key: asyncio.create_task(self._one(item)) for key, item in unique.items()}
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=self._settings.budget)
            for task in late:
                task.cancel()
        return [self._answer(tasks[_key(item)]) for item in questions]

    def _answer(self, task: asyncio.Task[Finding]) -> Finding:
        if not task.done():
            return Finding(reason=f"no answer within {self._settings.budget:g} s")
        return task.result()

    def _rest(self, backend: _Backend) -> None:
        backend.rests_until = time.monotonic() + self._settings.pause
        self._measures.add("lookup_failures", backend=backend.name)

    async def _one(self, question: Question) -> Finding:
        if question.no_trace is not None:
            return Finding(reason=question.no_trace)
        reasons = []
        for backend, usable in (
            (self._exemplars, question.exemplars),
            (self._search, question.service),
        ):
            if backend is not None and usable:
                found = await self._ask(backend, question)
                if found.sightings:
                    return found
                reasons.append(found.reason)
        return Finding(reason="; ".join(reasons) or "the rule names no source of traces")

    async def _ask(self, backend: _Backend, question: Question) -> Finding:
        async with self._slots:
            if time.monotonic() < backend.rests_until:
                return Finding(reason=f"{backend.name} does not answer")
            try:
                sightings = await backend.ask(question, time.time())
            except LookupFailed as failure:
                self._rest(backend)
                return Finding(reason=str(failure))
        backend.rests_until = 0.0
        nothing = f"{backend.name} has none in {question.window:g} s"
        return Finding(sightings, backend.name, "" if sightings else nothing)


def _key(question: Question) -> str:
    return repr(question)


def _exemplar_backend(settings: Settings, client: httpx.AsyncClient) -> _Backend | None:
    url = settings.prometheus
    if url is None:
        return None
    return _Backend("exemplars", lambda what, now: exemplars.find(client, url, what, now))


def _search_backend(settings: Settings, client: httpx.AsyncClient) -> _Backend | None:
    url, kind = settings.traces, settings.traces_kind
    if url is None:
        return None
    return _Backend(kind, lambda what, now: search.find(client, kind, url, what, now))
