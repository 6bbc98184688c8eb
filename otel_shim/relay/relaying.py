"""From a batch of alerts as it came to the batch that is passed on."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from otel_shim.relay import alerts
from otel_shim.relay.alerts import Incoming
from otel_shim.relay.lookup import Lookup
from otel_shim.relay.measures import Measures
from otel_shim.relay.memory import Memory, same_episode
from otel_shim.relay.model import Finding, Question, Remembered, Settings

_logger = logging.getLogger(__name__)
_UNKNOWN = Finding(reason="the relay has no record of this alert while it was firing")
Answered = tuple[Incoming, Finding]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch to pass on, how many alerts it has, and for which of them a second look may find a trace."""

    body: bytes
    alerts: int
    without: tuple[Incoming, ...] = ()


class Relaying:
    """Adds to alerts what is remembered or found; on any failure they go on as they are."""

    def __init__(
        self, settings: Settings, lookup: Lookup, memory: Memory, measures: Measures
    ) -> None:
        self._settings = settings
        self._lookup, self._memory, self._measures = lookup, memory, measures

    async def prepare(self, body: bytes) -> Prepared:
        """The batch to pass on; never raises."""
        batch: Sequence[Any] = ()
        try:
            batch = _batch(body)
            return await self._enriched(batch)
        except Exception:  # a page matters more than its ids
            self._measures.add("errors")
            _logger.exception("alerts are passed on as they came")
            return Prepared(body, max(len(batch), 1))

    async def again(self, batch: Sequence[Incoming]) -> Prepared:
        """Those of a batch that have a trace by now, unless something newer came of them meanwhile."""
        questions = [self._question(alert) for alert in batch]
        answers = await self._lookup.find(questions, self._settings.patience)
        found = [
            (alert, finding)
            for alert, finding in zip(batch, answers, strict=True)
            if finding.sightings and self._is_newest(alert)
        ]
        await self._keep(found, time.time())
        newest = [(alert, finding) for alert, finding in found if self._is_newest(alert)]
        self._count(finding for _, finding in newest)
        return _prepared([self._annotated(alert, finding) for alert, finding in newest])

    async def _enriched(self, batch: Sequence[Any]) -> Prepared:
        """Each by itself: one that cannot be read goes on as it came and costs the others nothing."""
        now = time.time()
        read = [self._read(raw, now) for raw in batch]
        incoming = [alert for alert in read if alert is not None]
        findings = await self._findings(incoming, now)
        given = iter(findings)
        passed_on = [
            raw if alert is None else self._annotated(alert, next(given))
            for raw, alert in zip(batch, read, strict=True)
        ]
        return _prepared(passed_on, zip(incoming, findings, strict=True))

    def _read(self, raw: Any, now: float) -> Incoming | None:
        try:
            return alerts.incoming(raw, now)
        except ValueError as error:
            self._measures.add("errors")
            _logger.warning("passed on as it came: %s", error)
            return None

    def _annotated(self, alert: Incoming, finding: Finding) -> alerts.Alert:
        return alerts.annotated(alert.raw, finding, self._settings.trace_link)

    async def _findings(self, batch: Sequence[Incoming], now: float) -> list[Finding]:
        known = [self._recalled(alert) for alert in batch]
        asked = [i for i, found in enumerate(known) if found is None]
        questions = [self._question(batch[i]) for i in asked]
        answers = await self._lookup.find(questions, self._settings.budget)
        given = dict(zip(asked, answers, strict=True))
        findings = [found or given[i] for i, found in enumerate(known)]
        self._count(findings)
        said = zip(batch, findings, strict=True)
        await self._keep([each for each in said if each[1] is not _UNKNOWN], now)
        return findings

    def _recalled(self, alert: Incoming) -> Finding | None:
        """What holds for this alert without asking; None when it is to be asked for."""
        known = self._memory.recall(alert.fingerprint)
        if known is None or not same_episode(known, alert.starts_at):
            return _UNKNOWN if alert.resolved else None
        return known.finding if known.finding.sightings or alert.resolved else None

    def _is_newest(self, alert: Incoming) -> bool:
        """Whether what is remembered is of this very message."""
        known = self._memory.recall(alert.fingerprint)
        return known is not None and known.ends_at == alert.ends_at

    def _question(self, alert: Incoming) -> Question:
        try:
            return alerts.question(alert.raw)
        except ValueError as error:
            self._measures.add("errors")
            return Question(no_trace=f"the rule's {alerts.INSTRUCTIONS}* annotations: {error}")

    def _count(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._measures.add("findings", source=finding.source or "none")

    async def _keep(self, said: Sequence[Answered], now: float) -> None:
        """Remember before anything is sent; a disk that is full or slow costs the memory, not the alert."""
        if not said:
            return
        outcome = self._memory.keep(
            (alert.fingerprint, Remembered(finding, alert.ends_at, now)) for alert, finding in said
        )
        written = asyncio.wrap_future(outcome)
        await asyncio.wait({written}, timeout=self._settings.write_wait)
        error = written.result() if written.done() else "the disk is slow"
        if error is not None:
            self._measures.add("errors")
            _logger.warning("ids are not on disk: %s", error)


def _batch(body: bytes) -> list[Any]:
    batch = json.loads(body)
    if not isinstance(batch, list):
        raise TypeError("not a list of alerts")
    return batch


def _prepared(batch: Sequence[Any], answered: Iterable[Answered] = ()) -> Prepared:
    without = tuple(alert for alert, finding in answered if finding.may_be_found)
    return Prepared(json.dumps(batch).encode(), len(batch), without)
