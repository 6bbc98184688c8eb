"""Which trace shows what an alert is about: exemplars first, then a trace search, within a budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence

import httpx

from otel_shim.relay import alerts, exemplars, search
from otel_shim.relay.backend import Backend
from otel_shim.relay.measures import Measures
from otel_shim.relay.model import Finding, Question, Settings

_logger = logging.getLogger(__name__)
_SHARE = 0.55
"""Of the time that is left, for a backend after which another one may be asked."""


class Lookup:
    """Asks the backends of the settings, one after the other."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient, measures: Measures) -> None:
        self._measures = measures
        self._exemplars = _exemplar_backend(settings, client, measures)
        self._search = _search_backend(settings, client, measures)

    async def find(self, questions: Sequence[Question], budget: float) -> list[Finding]:
        """An answer for each, after at most so many seconds; never raises.

        Questions that are the same are asked once.
        """
        deadline = time.monotonic() + budget
        unique = {repr(item): item for item in questions}
        found = await asyncio.gather(*(self._safely(item, deadline) for item in unique.values()))
        answers = dict(zip(unique, found, strict=True))
        return [answers[repr(item)] for item in questions]

    async def _safely(self, question: Question, deadline: float) -> Finding:
        try:
            return await self._one(question, deadline)
        except Exception as error:  # one question is not to blind the others
            self._measures.add("errors")
            _logger.exception("a look-up failed inside the relay")
            return alerts.failure(error)

    async def _one(self, question: Question, deadline: float) -> Finding:
        if question.no_trace is not None:
            return Finding(reason=question.no_trace)
        answers = []
        usable = [*self._usable(question)]
        for backend in usable:
            left = deadline - time.monotonic()
            found = await backend.find(question, left if backend is usable[-1] else left * _SHARE)
            if found.sightings:
                return found
            answers.append(found)
        reasons = "; ".join(found.reason for found in answers)
        may_be_found = any(found.may_be_found for found in answers)
        return Finding(
            reason=reasons or "the rule names no source of traces", may_be_found=may_be_found
        )

    def _usable(self, question: Question) -> Iterator[Backend]:
        """Those that the rule has something to ask."""
        if self._exemplars is not None and question.exemplars:
            yield self._exemplars
        if self._search is not None and question.service:
            yield self._search


def _exemplar_backend(
    settings: Settings, client: httpx.AsyncClient, measures: Measures
) -> Backend | None:
    url = settings.prometheus
    if url is None:
        return None
    return Backend(
        "exemplars",
        lambda what, now: exemplars.find(client, url, what, now),
        measures,
        settings.pause,
    )


def _search_backend(
    settings: Settings, client: httpx.AsyncClient, measures: Measures
) -> Backend | None:
    url, kind = settings.traces, settings.traces_kind
    if url is None:
        return None
    return Backend(
        kind,
        lambda what, now: search.find(client, kind, url, what, now),
        measures,
        settings.pause,
        search.LONGEST[kind],
    )
