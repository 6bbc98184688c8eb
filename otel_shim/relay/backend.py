"""A place to ask for traces: how many at once, and when it is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from otel_shim.relay.measures import Measures
from otel_shim.relay.model import (
    Finding,
    LookupFailed,
    LookupRefused,
    Question,
    Sighting,
)

Ask = Callable[[Question, float], Awaitable[tuple[Sighting, ...]]]
_AT_ONCE = 16
_FAILURES = 3
_LEAST_SECONDS = 0.001  # with none at all it would not even be counted
_WHY = ("refused", "unavailable", "late", "unasked")


class Backend:
    """Asks within a time, and counts what got no answer, by why.

    `unavailable`, `late`: it failed, or gave no answer in the time. After three of these in a row it rests for a
    second, then, if the next fails too, for twice as long each time up to `pause`. One slow question rests nobody.
    After a rest one question is asked, and the others wait for nothing. `refused` (4xx) is about the question. `unasked`: others were before it.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        measures: Measures,
        pause: float,
        longest: float = float("inf"),
    ) -> None:
        self.name, self._ask, self._measures = name, ask, measures
        self._pause, self._longest = pause, longest
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._failures = 0
        self._rests_until = 0.0  # monotonic
        self._probed = False
        for why in _WHY:  # counted from 0: the first failure is an increase, too
            self._count(why, 0)

    async def find(self, question: Question, seconds: float) -> Finding:
        """Its answer, after at most so long; never raises."""
        fitting = replace(question, window=min(question.window, self._longest))
        if self._rests:
            return self._resting
        try:
            asked = self._asked(fitting, time.monotonic() + seconds / 2)
            return await asyncio.wait_for(asked, max(seconds, _LEAST_SECONDS))
        except asyncio.TimeoutError:
            return _nothing(f"{self.name}: no answer within {seconds:.1f} s")
        except LookupRefused as failure:
            self._count("refused")
            return Finding(reason=str(failure))
        except LookupFailed as failure:
            self._count("unavailable")
            return _nothing(str(failure))

    async def _asked(self, question: Question, fairly: float) -> Finding:
        """Its answer; whoever is asked after the time `fairly` is not to blame for having none."""
        begun: float | None = None
        try:
            async with self._slots:
                if self._rests:
                    return self._resting
                begun = time.monotonic()
                sightings = await self._probe(question)
        except asyncio.CancelledError:
            self._count("unasked" if begun is None else "late")
            if begun is not None and begun <= fairly:
                self._went(False)
            raise
        except LookupFailed as failure:
            self._went(isinstance(failure, LookupRefused))
            raise
        self._went(True)
        if sightings:
            return Finding(sightings, self.name)
        return _nothing(f"{self.name} has none in {question.window:g} s")

    async def _probe(self, question: Question) -> tuple[Sighting, ...]:
        """Ask; alone, if it has failed before."""
        alone = self._probed = self._failures >= _FAILURES
        try:
            return await self._ask(question, time.time())
        finally:
            self._probed = self._probed and not alone

    @property
    def _rests(self) -> bool:
        return self._probed or time.monotonic() < self._rests_until

    @property
    def _resting(self) -> Finding:
        return _nothing(f"{self.name} does not answer")

    def _went(self, well: bool) -> None:
        """Note how a question went; what fails while it rests already was asked at the same time."""
        if well:
            self._failures, self._rests_until = 0, 0.0
        if well or self._rests:
            return
        self._failures += 1
        if self._failures >= _FAILURES:
            rest = min(self._pause, 2.0 ** (self._failures - _FAILURES))
            self._rests_until = time.monotonic() + rest

    def _count(self, why: str, number: int = 1) -> None:
        self._measures.add("lookup_failures", number, backend=self.name, reason=why)


def _nothing(reason: str) -> Finding:
    """Nothing so far: another time it may answer."""
    return Finding(reason=reason, may_be_found=True)
